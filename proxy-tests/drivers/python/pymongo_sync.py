"""PyMongo's synchronous client. See ../README.md for the cells and the line protocol."""

import platform
import sys
import threading
import time

import pymongo
from pymongo import InsertOne, MongoClient, UpdateOne, WriteConcern
from pymongo.errors import CursorNotFound, PyMongoError


def say(*words):
    print(*words, flush=True)


def suspend():
    say("SUSPEND")
    if sys.stdin.readline().strip() != "done":
        raise SystemExit("the harness is gone")


def cell(name, work):
    try:
        result = work()
    except Exception as error:
        result = f"failed: {type(error).__name__}: {error}"
    say("CELL", name, " ".join(str(result).split()))


def eventually(ask):
    deadline = time.monotonic() + 20
    while not ask():
        assert time.monotonic() < deadline, "not within 20 s"
        time.sleep(0.05)


def main():
    client = MongoClient(sys.argv[1])
    plain = MongoClient(sys.argv[2])
    db = client.scenario
    say("VERSION", f"{pymongo.version}, Python {platform.python_version()}")

    def connect():
        assert client.admin.command("ping")["ok"] == 1
        assert db.things.count_documents({}) == 0
        return "ok"

    def crud():
        db.things.insert_one({"_id": 1, "n": 1})
        assert db.things.update_one({"_id": 1}, {"$inc": {"n": 1}}).modified_count == 1
        assert db.things.find_one({"_id": 1})["n"] == 2
        assert db.things.delete_one({"_id": 1}).deleted_count == 1
        return "ok"

    def retryable_write():
        db.things.insert_one({"_id": 2})
        # A server remembers the last retryable write of each session.
        assert client.config.transactions.count_documents({}) > 0
        return "ok"

    def bulk_write():
        db.many.bulk_write([InsertOne({"_id": n}) for n in range(100)])
        result = db.many.bulk_write(
            [InsertOne({"_id": 100}), UpdateOne({"_id": 0}, {"$set": {"x": 1}})]
        )
        assert (result.inserted_count, result.modified_count) == (1, 1)
        return "ok"

    def batches():
        found = list(db.many.find().sort("_id").batch_size(10))
        assert [one["_id"] for one in found] == list(range(101))
        return "ok"

    def unacknowledged():
        db.get_collection("things", write_concern=WriteConcern(w=0)).insert_one({"_id": "w0"})
        eventually(lambda: db.things.find_one({"_id": "w0"}))
        return "ok"

    def insert_twice(name, between=lambda: None):
        with client.start_session() as session, session.start_transaction():
            db.things.insert_one({"_id": f"{name} 1"}, session=session)
            between()
            db.things.insert_one({"_id": f"{name} 2"}, session=session)

    def transaction():
        insert_twice("transaction")
        assert db.things.count_documents({"_id": {"$regex": "^transaction"}}) == 2
        return "ok"

    def watched(name, between):
        """Inserts three events, of which the stream must show each once and in order."""
        seen, failed = [], []

        def watch():
            try:
                for change in stream:
                    seen.append(change["documentKey"]["_id"])
                    if len(seen) == 3:
                        break
            except PyMongoError as error:
                failed.append(error)

        with db.events.watch() as stream:
            thread = threading.Thread(target=watch)
            thread.start()
            wanted = [f"{name} {n}" for n in range(3)]
            db.events.insert_one({"_id": wanted[0]})
            eventually(lambda: seen or failed)
            between()
            for one in wanted[1:]:
                db.events.insert_one({"_id": one})
            thread.join(30)
        if failed:
            raise failed[0]
        assert seen == wanted, seen

    def change_stream():
        watched("stream", lambda: None)
        return "ok"

    def idle_pool():
        threads = [threading.Thread(target=plain.scenario.many.find_one) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        suspend()
        plain.scenario.things.insert_one({"_id": "after the nap"})
        assert plain.scenario.things.find_one({"_id": "after the nap"})
        suspend()
        assert plain.scenario.many.count_documents({}) == 101
        return "ok"

    def open_cursor():
        cursor = plain.scenario.many.find().sort("_id").batch_size(10)
        found = [next(cursor)["_id"]]
        suspend()
        try:
            found.extend(one["_id"] for one in cursor)
        except CursorNotFound:
            assert plain.scenario.many.count_documents({}) == 101
            return "CursorNotFound"
        assert found == list(range(101)), found
        return "completes"

    def open_transaction():
        try:
            insert_twice("reopened", suspend)
        except PyMongoError as error:
            assert error.has_error_label("TransientTransactionError"), error
            insert_twice("reopened")
            return "TransientTransactionError"
        return "failed: no error"

    def waiting_stream():
        watched("waiting", suspend)
        return "resumes"

    cell("connect", connect)
    cell("crud", crud)
    cell("retryable-write", retryable_write)
    cell("bulk-write", bulk_write)
    cell("batches", batches)
    cell("w0", unacknowledged)
    cell("transaction", transaction)
    cell("change-stream", change_stream)
    cell("idle-pool", idle_pool)
    cell("open-cursor", open_cursor)
    cell("open-transaction", open_transaction)
    cell("waiting-stream", waiting_stream)
    client.close()
    plain.close()


if __name__ == "__main__":
    main()
