#!/usr/bin/env python3
"""Drives headless Chromium through the operator's page: login, list, suspend, restore, session end.

usage: browser.py URL ADMIN_KEY ACCOUNT_NAME OUT_DIR
"""
import json
import sys

import chromium
from chromium import login

url, key, account, out = sys.argv[1:5]


def decide(page, button, fields, ok_state):
    page.run(f"document.getElementById('{button}').click()")
    page.until(f"{button} asks for a reason", "document.getElementById('ask').open")
    page.run("document.getElementById('ask-ok').click()")
    page.until(f"{button} without a reason stays open", "document.getElementById('ask').open")
    for name, text in fields.items():
        page.run(f"document.getElementById('ask-{name}').value = {json.dumps(text)}")
    page.run("document.getElementById('ask-ok').click()")
    page.until(f"{button}: the account is {ok_state}",
               f"document.querySelector('#account .state')?.textContent === '{ok_state}'")


def main(page):
    page.send("Page.navigate", url=url)
    page.until("the page asks for a key", "!!document.querySelector('#login button') && document.readyState === 'complete'")
    login(page, "sk-rt-admin-AAAAAAAA-" + "A" * 43)
    page.until("a wrong key is refused in words", "document.getElementById('message').textContent.length > 10")
    page.until("and shows nothing", "document.getElementById('desk').hidden")
    page.complaints[:] = [text for text in page.complaints if "401" not in text]  # the browser notes the 401 itself
    login(page, key)
    page.until("the right key opens the desk", "!document.getElementById('desk').hidden")
    page.until("accounts are listed", f"document.getElementById('accounts').innerText.includes({json.dumps(account)})")
    page.until("with sparklines", "document.querySelectorAll('#accounts svg polyline').length > 0")
    page.until("live figures come", "document.querySelector('#rate-line svg') !== null")
    page.picture("admin-accounts.png", 1280, 800)
    page.run(f"[...document.querySelectorAll('#accounts button')].find(b => b.textContent === {json.dumps(account)}).click()")
    page.until("one account's history", "document.getElementById('account').innerText.includes('Last requests')")
    decide(page, "suspend", {"reason": "<img src=x onerror=alert(1)> test", "public": "A test of the page."}, "suspended")
    page.until("reasons are text, never markup", "document.querySelector('#account img') === null")
    page.picture("admin-account.png", 1280, 1000)
    page.picture("admin-phone.png", 390, 844)
    page.until("nothing is wider than a phone",
               "[...document.querySelectorAll('main *')].every(e => e.closest('.scroll') || e.getBoundingClientRect().right <= innerWidth + 1)")
    decide(page, "reinstate", {"note": "It was only a test."}, "active")
    page.run("[...document.querySelectorAll('nav button')].find(b => b.dataset.view === 'trail').click()")
    page.until("the trail has both decisions and is whole",
               "['account.suspend', 'account.reinstate', 'Whole:'].every(t => document.getElementById('trail').innerText.includes(t))")
    page.run("[...document.querySelectorAll('nav button')].find(b => b.dataset.view === 'appeals').click()")
    page.until("appeals are listed", "document.getElementById('appeals').innerText.includes('Appeals')")
    page.run("[...document.querySelectorAll('nav button')].find(b => b.dataset.view === 'requests').click()")
    page.until("live requests are listed", "document.getElementById('requests').innerText.includes('under way')")
    page.run("document.getElementById('leave').click()")
    page.until("the session ends", "document.getElementById('desk').hidden && !document.getElementById('door').hidden")
    page.until("and leaves nothing behind", "document.getElementById('accounts').childElementCount === 0 && sessionStorage.length + localStorage.length === 0 && document.cookie === ''")


chromium.run(main, out)
