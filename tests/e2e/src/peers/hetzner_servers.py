# Makes servers at the cloud, more than fit a page, waits until each is there, and prints their ids.
import json
import sys
import time
import urllib.request

url, token = sys.argv[1:]


def ask(path, body=None):
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url + path, data, headers)) as answer:
        return json.load(answer)


kind = ask("/server_types")["server_types"][0]["name"]
image = ask("/images")["images"][0]["name"]
ids = []
for number in range(52):
    body = {"name": f"web{number}", "server_type": kind, "image": image}
    ids.append(ask("/servers", body)["server"]["id"])
until = time.monotonic() + 60
for id in ids:
    while ask(f"/servers/{id}")["server"]["status"] != "running":
        assert time.monotonic() < until, f"server {id} does not start"
        time.sleep(0.1)
print(json.dumps(ids))
