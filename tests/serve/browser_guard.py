#!/usr/bin/env python3
"""Drives headless Chromium through the guard's pages.

usage: browser_guard.py URL ADMIN_KEY CLUSTER_MEMBER LONE_COLLECTOR OUT_DIR
"""
import json
import sys
import urllib.request

import chromium
from chromium import login

url, key, member, lone, out = sys.argv[1:6]
FITS = ("[...document.querySelectorAll('main *')].every(e => e.closest('.scroll') || e.closest('svg') || "
        "e.getBoundingClientRect().right <= innerWidth + 1)")


def view(page, name):
    page.run(f"document.querySelector('nav button[data-view={name}]').click()")


def press(page, section, text):
    page.run(f"[...document.querySelectorAll('#{section} button')].find(b => b.textContent.startsWith({json.dumps(text)})).click()")


def says(section, text):
    return f"document.getElementById('{section}').innerText.includes({json.dumps(text)})"


def phone(page, name, section):
    page.picture(name, 390, 844)
    page.until(f"{section}: nothing is wider than a phone", FITS)
    page.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)


def somebody_else_suspends():
    """Another reviewer, meanwhile: one member of the cluster that is shown."""
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/guard/review", headers=headers)) as answer:
        last = json.load(answer)["items"][0]["accounts"][-1]["account"]
    body = json.dumps({"reason": "seen by another", "seen": ""}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{url}/v1/accounts/{last}/suspend", body, headers)).close()
    return last


def main(page):
    page.send("Page.navigate", url=url)
    page.until("the page asks for a key", "!!document.querySelector('#login button') && document.readyState === 'complete'")
    login(page, key)
    page.until("the desk opens with the guard's pages", "!document.querySelector('nav button[data-view=whatif]').hidden")

    view(page, "review")
    page.until("the review begins with the cluster", "/^Cluster/.test(document.querySelector('#review article')?.innerText || '')")
    page.until("what waits is counted", "/\\(\\d+\\)/.test(document.getElementById('review-count').textContent)")
    page.picture("guard-review.png", 1280, 1000)
    phone(page, "guard-review-phone.png", "review")

    view(page, "clusters")
    page.until("clusters are listed", says("clusters", "accused"))
    page.picture("guard-clusters.png", 1280, 800)
    press(page, "clusters", "Cluster")
    page.until("a cluster's links are drawn", "document.querySelectorAll('#cluster svg.graph line.link').length >= 16")
    page.until("as many accounts as it has", "document.querySelectorAll('#cluster svg.graph g.member').length === 16")
    page.picture("guard-cluster.png", 1280, 1300)
    phone(page, "guard-cluster-phone.png", "cluster")
    page.run("document.querySelector('#cluster svg.graph g.member').focus()")
    page.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13)
    page.until("Enter on an account of the graph opens its page", says("account", "Most telling requests"))

    page.until("its evidence is drawn over time", "document.querySelectorAll('#account .plots svg path.line').length >= 6")
    page.until("its requests are named", says("account", "req_"))
    page.until("and the accounts it is linked with", "document.querySelector('#account svg.graph g.here') !== null")
    page.picture("guard-account.png", 1280, 2200)
    phone(page, "guard-account-phone.png", "account")

    view(page, "calibration")
    page.until("calibration says whether the reference fits", says("calibration", "reference"))
    page.until("with a histogram of p-values", "document.querySelectorAll('#calibration rect.bar').length >= 20")
    page.picture("guard-calibration.png", 1280, 1300)
    phone(page, "guard-calibration-phone.png", "calibration")

    view(page, "whatif")
    page.run("document.getElementById('policy').value = 'slow: {p: 3}'; document.getElementById('try').click()")
    page.until("a policy that is wrong is refused in words", "document.getElementById('message').textContent.includes('slow.p')")
    page.complaints[:] = [text for text in page.complaints if "400" not in text]
    page.run("const s = document.getElementById('preset'); s.selectedIndex = 1; s.dispatchEvent(new Event('change'));"
             "document.getElementById('try').click()")
    page.until("another policy is tried", says("whatif-result", "would be treated otherwise"))
    page.picture("guard-whatif.png", 1280, 1100)
    phone(page, "guard-whatif-phone.png", "whatif")

    view(page, "review")
    page.until("back to the review", "/^Cluster/.test(document.querySelector('#review article')?.innerText || '')")
    other = somebody_else_suspends()
    page.run("document.querySelector('#review article button.danger').click()")
    page.until("a reason is asked for", "document.getElementById('ask').open")
    page.run("document.getElementById('ask-reason').value = '<b>One</b> operator, sixteen accounts';"
             "document.getElementById('ask-public').value = 'Bulk collection.'; document.getElementById('ask-ok').click()")
    page.until("the second of two reviewers is told what the first decided",
               f"document.getElementById('message').textContent.includes('1 of 16 were not changed: {other}: the account was decided about')")
    page.complaints[:] = [text for text in page.complaints if "409" not in text]
    page.until("each decision is in the trail, as text",
               "document.querySelector('nav button[data-view=trail]').click() || "
               "document.getElementById('trail').innerText.split('account.suspend').length - 1 === 16 && "
               "document.querySelector('#trail b') === null")


chromium.run(main, out)
