"""Many idle PyMongo clients. See ../README.md for the line protocol; the number of clients comes in
SOAK_CLIENTS."""

import os
import sys

from pymongo import MongoClient
from pymongo.monitoring import ServerHeartbeatListener


class Heartbeats(ServerHeartbeatListener):
    answered = 0
    unanswered = 0

    def started(self, event):
        pass

    def succeeded(self, event):
        Heartbeats.answered += 1

    def failed(self, event):
        Heartbeats.unanswered += 1


def main():
    number = int(os.environ["SOAK_CLIENTS"])
    # The second URI: no error is to be hidden by a retry.
    clients = [MongoClient(sys.argv[2], event_listeners=[Heartbeats()]) for _ in range(number)]
    for client in clients:
        client.soak.things.insert_one({"before": 1})
    awake = Heartbeats.answered
    print("SUSPEND", flush=True)
    if sys.stdin.readline() != "done\n":
        raise SystemExit("the harness is gone")
    print("CELL heartbeats", Heartbeats.answered - awake, flush=True)
    for client in clients:
        client.soak.things.insert_one({"after": 1})
        assert client.soak.things.find_one({"after": 1})
    assert Heartbeats.unanswered == 0
    print("CELL soak ok", flush=True)


if __name__ == "__main__":
    main()
