#!/usr/bin/env python3
"""Drives headless Chromium through the operator's page: login, list, suspend, restore, session end.

usage: browser.py URL ADMIN_KEY ACCOUNT_NAME OUT_DIR

Speaks the browser's debugging protocol over a WebSocket with the standard library alone.  Prints one line a
step; the first that fails ends it with status 1.  Console errors and blocked resources fail it too.
"""
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

url, key, account, out = sys.argv[1:5]
profile = tempfile.mkdtemp(prefix="profile-", dir=out)
browser = subprocess.Popen(
    ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
     "--remote-allow-origins=*", "--user-data-dir=" + profile, "about:blank"],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Page:
    """One tab: commands out, answers and events in."""

    def __init__(self, address):
        host, path = address[len("ws://"):].split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=60)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        self.number, self.complaints = 0, []

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise SystemExit("the browser has gone")
            data += part
        return data

    def _receive(self):
        message = b""
        while True:
            first, second = self._read(2)
            size = second & 127
            if size == 126:
                size, = struct.unpack(">H", self._read(2))
            elif size == 127:
                size, = struct.unpack(">Q", self._read(8))
            message += self._read(size)
            if first & 128:
                return json.loads(message)

    def send(self, method, **params):
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        mask = os.urandom(4)
        size = len(data)
        head = b"\x81" + (bytes([128 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
                          if size < 65536 else b"\xff" + struct.pack(">Q", size))
        self.socket.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                return answer.get("result", {})
            event = answer.get("params", {})
            if answer.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(event["exceptionDetails"].get("text", "") + str(
                    event["exceptionDetails"].get("exception", {}).get("description", "")))
            if answer.get("method") == "Log.entryAdded" and event["entry"]["level"] == "error":
                self.complaints.append(event["entry"]["text"] + " " + event["entry"].get("url", ""))

    def run(self, script):
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, what, script):
        for _ in range(200):
            if self.run(script):
                print("ok", what)
                return
            time.sleep(0.1)
        raise SystemExit(f"FAILED: {what}: {script} never came true; page: {self.run('document.body.innerText')[:600]}")

    def picture(self, name, width, height):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        data = self.send("Page.captureScreenshot", format="png")["data"]
        with open(os.path.join(out, name), "wb") as file:
            file.write(base64.b64decode(data))


def open_page():
    port_file = os.path.join(profile, "DevToolsActivePort")
    for _ in range(300):
        if os.path.exists(port_file) and os.path.getsize(port_file) > 3:
            break
        time.sleep(0.1)
    port = open(port_file).readline().strip()
    for _ in range(100):
        tabs = [t for t in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json")) if t["type"] == "page"]
        if tabs:
            return Page(tabs[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise SystemExit("the browser has no tab")


def login(page, secret):
    page.run(f"document.getElementById('key').value = {json.dumps(secret)};"
             "document.querySelector('#login button').click()")


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


def main():
    page = open_page()
    for domain in ("Runtime", "Log", "Page", "Network"):
        page.send(domain + ".enable")
    page.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
    page.send("Page.navigate", url=url)
    page.until("the page asks for a key", "!!document.querySelector('#login button') && document.readyState === 'complete'")
    login(page, "sk-rt-admin-AAAAAAAA-" + "A" * 43)
    page.until("a wrong key is refused in words", "document.getElementById('message').textContent.length > 10")
    page.until("and shows nothing", "document.getElementById('desk').hidden")
    expected = len(page.complaints)  # the browser notes the 401 itself
    if any("401" not in text for text in page.complaints):
        raise SystemExit(f"FAILED: console: {page.complaints}")
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
    if page.complaints[expected:]:
        raise SystemExit(f"FAILED: console: {page.complaints[expected:]}")
    print("ok no console errors")


try:
    main()
finally:
    browser.terminate()
    browser.wait()
