"""A tenant's program: posts a build for every credit it is given (a number per line of its input), over a few kept
connections. In a process of its own, so that its cost is not taken for ours.

    python -m benchmarks.rig.client PORT IMAGE FLAVOR
"""

import http.client
import json
import queue
import sys
import threading

CONNECTIONS = 4


def main() -> None:
    """Ends, with the number of failures as its output, when the input ends and everything is posted."""
    port, image, flavor = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    body = json.dumps({"server": {"name": "bench", "imageRef": image, "flavorRef": flavor, "networks": "none"}})
    credits: queue.SimpleQueue[bool] = queue.SimpleQueue()
    failures: list[str] = []

    def post() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/json", "OpenStack-API-Version": "compute 2.47"}
        while credits.get():
            connection.request("POST", "/v2.1/servers", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != http.HTTPStatus.ACCEPTED:
                failures.append(f"{answer.status} {text[:200]!r}")
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        for _ in range(int(line)):
            credits.put(True)
    for _ in threads:
        credits.put(False)
    for thread in threads:
        thread.join()
    print(json.dumps(failures[:3]))


if __name__ == "__main__":
    main()
