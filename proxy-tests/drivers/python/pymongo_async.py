"""PyMongo's asyncio client. See ../README.md for the cells and the line protocol."""

import asyncio
import platform
import sys
import time

import pymongo
from pymongo import AsyncMongoClient, InsertOne, UpdateOne, WriteConcern
from pymongo.errors import CursorNotFound, PyMongoError


def say(*words):
    print(*words, flush=True)


async def suspend():
    say("SUSPEND")
    if (await asyncio.to_thread(sys.stdin.readline)).strip() != "done":
        raise SystemExit("the harness is gone")


async def cell(name, work):
    try:
        result = await work()
    except Exception as error:
        result = f"failed: {type(error).__name__}: {error}"
    say("CELL", name, " ".join(str(result).split()))


async def eventually(ask):
    deadline = time.monotonic() + 20
    while not await ask():
        assert time.monotonic() < deadline, "not within 20 s"
        await asyncio.sleep(0.05)


async def main():
    client = AsyncMongoClient(sys.argv[1])
    plain = AsyncMongoClient(sys.argv[2])
    db = client.scenario
    say("VERSION", f"{pymongo.version}, Python {platform.python_version()}")

    async def connect():
        assert (await client.admin.command("ping"))["ok"] == 1
        assert await db.things.count_documents({}) == 0
        return "ok"

    async def crud():
        await db.things.insert_one({"_id": 1, "n": 1})
        assert (await db.things.update_one({"_id": 1}, {"$inc": {"n": 1}})).modified_count == 1
        assert (await db.things.find_one({"_id": 1}))["n"] == 2
        assert (await db.things.delete_one({"_id": 1})).deleted_count == 1
        return "ok"

    async def retryable_write():
        await db.things.insert_one({"_id": 2})
        assert await client.config.transactions.count_documents({}) > 0
        return "ok"

    async def bulk_write():
        await db.many.bulk_write([InsertOne({"_id": n}) for n in range(100)])
        result = await db.many.bulk_write(
            [InsertOne({"_id": 100}), UpdateOne({"_id": 0}, {"$set": {"x": 1}})]
        )
        assert (result.inserted_count, result.modified_count) == (1, 1)
        return "ok"

    async def batches():
        found = await db.many.find().sort("_id").batch_size(10).to_list()
        assert [one["_id"] for one in found] == list(range(101))
        return "ok"

    async def unacknowledged():
        things = db.get_collection("things", write_concern=WriteConcern(w=0))
        await things.insert_one({"_id": "w0"})

        async def arrived():
            return await db.things.find_one({"_id": "w0"})

        await eventually(arrived)
        return "ok"

    async def nothing():
        pass

    async def insert_twice(name, between=nothing):
        async with client.start_session() as session, await session.start_transaction():
            await db.things.insert_one({"_id": f"{name} 1"}, session=session)
            await between()
            await db.things.insert_one({"_id": f"{name} 2"}, session=session)

    async def transaction():
        await insert_twice("transaction")
        assert await db.things.count_documents({"_id": {"$regex": "^transaction"}}) == 2
        return "ok"

    async def watched(name, between):
        """Inserts three events, of which the stream must show each once and in order."""
        seen = []

        async with await db.events.watch() as stream:

            async def watch():
                async for change in stream:
                    seen.append(change["documentKey"]["_id"])
                    if len(seen) == 3:
                        break

            task = asyncio.create_task(watch())

            async def begun():
                return seen or task.done()

            wanted = [f"{name} {n}" for n in range(3)]
            await db.events.insert_one({"_id": wanted[0]})
            await eventually(begun)
            await between()
            for one in wanted[1:]:
                await db.events.insert_one({"_id": one})
            await asyncio.wait_for(task, 30)
        assert seen == wanted, seen

    async def change_stream():
        await watched("stream", nothing)
        return "ok"

    async def idle_pool():
        await asyncio.gather(*(plain.scenario.many.find_one() for _ in range(5)))
        await suspend()
        await plain.scenario.things.insert_one({"_id": "after the nap"})
        assert await plain.scenario.things.find_one({"_id": "after the nap"})
        await suspend()
        assert await plain.scenario.many.count_documents({}) == 101
        return "ok"

    async def open_cursor():
        cursor = plain.scenario.many.find().sort("_id").batch_size(10)
        found = [(await anext(cursor))["_id"]]
        await suspend()
        try:
            found.extend([one["_id"] async for one in cursor])
        except CursorNotFound:
            assert await plain.scenario.many.count_documents({}) == 101
            return "CursorNotFound"
        assert found == list(range(101)), found
        return "completes"

    async def open_transaction():
        try:
            await insert_twice("reopened", suspend)
        except PyMongoError as error:
            assert error.has_error_label("TransientTransactionError"), error
            await insert_twice("reopened")
            return "TransientTransactionError"
        return "failed: no error"

    async def waiting_stream():
        await watched("waiting", suspend)
        return "resumes"

    await cell("connect", connect)
    await cell("crud", crud)
    await cell("retryable-write", retryable_write)
    await cell("bulk-write", bulk_write)
    await cell("batches", batches)
    await cell("w0", unacknowledged)
    await cell("transaction", transaction)
    await cell("change-stream", change_stream)
    await cell("idle-pool", idle_pool)
    await cell("open-cursor", open_cursor)
    await cell("open-transaction", open_transaction)
    await cell("waiting-stream", waiting_stream)
    await client.close()
    await plain.close()


if __name__ == "__main__":
    asyncio.run(main())
