# A controller with one outlet. Requests must be signed with the key, and freshly; an action is done
# once for each Idempotency-Key; a cycle is a job, which has ended when it is asked after twice.
import hashlib
import hmac
import http.server
import json
import re
import sys
import time
import urllib.parse

KEY = sys.argv[1].encode()
OUTLET = "rack 1/7"
relay = {"closed": False, "changes": 0}
jobs, seen = {}, {}


def switch(closed):
    relay["changes"] += relay["closed"] != closed
    relay["closed"] = closed


class Controller(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def signed(self, body):
        found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", self.headers.get("Loopback-Signature", ""))
        if not found or abs(int(found[1]) - time.time()) > 300:
            return False
        mac = hmac.new(KEY, found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(mac, found[2])

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.signed(body):
            return self.answer(401, {"why": "not signed with the key"})
        parts = [urllib.parse.unquote(part) for part in self.path.split("/")[1:]]
        if self.command == "GET" and parts[0] == "jobs" and parts[1] in jobs:
            jobs[parts[1]] += 1
            if jobs[parts[1]] < 2:
                return self.answer(200, {"is": "busy"})
            switch(True)
            return self.answer(200, {"is": "done"})
        if parts[:2] != ["outlets", OUTLET]:
            return self.answer(404, {"why": "no such outlet"})
        if self.command == "GET":
            return self.answer(200, {"relay": relay})
        said = json.loads(body)
        key = self.headers["Idempotency-Key"]
        assert key == f"{said['operation']}/{said['attempt']}" and said["address"] == OUTLET
        if key not in seen:
            if parts[2] == "cycle":
                job = f"job/{len(jobs)}"
                jobs[job] = 0
                switch(False)
                seen[key] = (202, {"job": job})
            else:
                switch(said["action"] == "on")
                seen[key] = (200, {"job": None})
        return self.answer(*seen[key])

    do_GET = do_PUT = do_POST = handle_one

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Controller)
print("port", server.server_address[1])
server.serve_forever()
