"""Headless Chromium through its debugging protocol, over a WebSocket with the standard library alone: for the tests of
the operator's page.  Each step that comes true prints one line; the first that does not ends the program with status 1."""
import base64
import json
import os
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

class Page:
    """One tab: commands out, answers and events in."""

    def __init__(self, address, out):
        host, path = address[len("ws://"):].split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), timeout=60)
        nonce = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.socket.recv(1)
        self.number, self.complaints, self.out = 0, [], out

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
        with open(os.path.join(self.out, name), "wb") as file:
            file.write(base64.b64decode(data))


def run(main, out):
    """Starts a browser, gives main a page, stops the browser; console errors that main does not expect fail it."""
    profile = tempfile.mkdtemp(prefix="profile-", dir=out)
    browser = subprocess.Popen(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0",
         "--remote-allow-origins=*", "--user-data-dir=" + profile, "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page = open_page(profile, out)
        for domain in ("Runtime", "Log", "Page", "Network"):
            page.send(domain + ".enable")
        page.send("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)
        main(page)
        if page.complaints:
            raise SystemExit(f"FAILED: console: {page.complaints}")
        print("ok no console errors")
    finally:
        browser.terminate()
        browser.wait()


def open_page(profile, out):
    port_file = os.path.join(profile, "DevToolsActivePort")
    for _ in range(300):
        if os.path.exists(port_file) and os.path.getsize(port_file) > 3:
            break
        time.sleep(0.1)
    port = open(port_file).readline().strip()
    for _ in range(100):
        tabs = [t for t in json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json")) if t["type"] == "page"]
        if tabs:
            return Page(tabs[0]["webSocketDebuggerUrl"], out)
        time.sleep(0.1)
    raise SystemExit("the browser has no tab")


def login(page, secret):
    page.run(f"document.getElementById('key').value = {json.dumps(secret)};"
             "document.querySelector('#login button').click()")
