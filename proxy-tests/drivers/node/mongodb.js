// The Node.js driver. See ../README.md for the cells and the line protocol.
"use strict";

const assert = require("node:assert/strict");
const { MongoClient } = require("mongodb");
const { cell, eventually, isCursorNotFound, numbers, say, suspend } = require("./harness");

async function main() {
  const [uri, plainUri] = process.argv.slice(2);
  const client = new MongoClient(uri);
  const plain = new MongoClient(plainUri).db("scenario");
  const db = client.db("scenario");
  const things = db.collection("things");
  const many = db.collection("many");
  say("VERSION", `${require("mongodb/package.json").version}, Node.js ${process.versions.node}`);

  await cell("connect", async () => {
    assert.equal((await client.db("admin").command({ ping: 1 })).ok, 1);
    assert.equal(await things.countDocuments(), 0);
    return "ok";
  });
  await cell("crud", async () => {
    await things.insertOne({ _id: 1, n: 1 });
    assert.equal((await things.updateOne({ _id: 1 }, { $inc: { n: 1 } })).modifiedCount, 1);
    assert.equal((await things.findOne({ _id: 1 })).n, 2);
    assert.equal((await things.deleteOne({ _id: 1 })).deletedCount, 1);
    return "ok";
  });
  await cell("retryable-write", async () => {
    await things.insertOne({ _id: 2 });
    assert((await client.db("config").collection("transactions").countDocuments()) > 0);
    return "ok";
  });
  await cell("bulk-write", async () => {
    await many.bulkWrite(numbers(100).map((_id) => ({ insertOne: { document: { _id } } })));
    const result = await many.bulkWrite([
      { insertOne: { document: { _id: 100 } } },
      { updateOne: { filter: { _id: 0 }, update: { $set: { x: 1 } } } },
    ]);
    assert.deepEqual([result.insertedCount, result.modifiedCount], [1, 1]);
    return "ok";
  });
  await cell("batches", async () => {
    const found = await many.find().sort("_id").batchSize(10).toArray();
    assert.deepEqual(found.map((one) => one._id), numbers(101));
    return "ok";
  });
  await cell("w0", async () => {
    await things.insertOne({ _id: "w0" }, { writeConcern: { w: 0 } });
    await eventually(() => things.findOne({ _id: "w0" }));
    return "ok";
  });

  const insertTwice = (name, between) =>
    client.withSession(async (session) => {
      session.startTransaction();
      await things.insertOne({ _id: `${name} 1` }, { session });
      await between();
      await things.insertOne({ _id: `${name} 2` }, { session });
      await session.commitTransaction();
    });
  await cell("transaction", async () => {
    await insertTwice("transaction", async () => {});
    assert.equal(await things.countDocuments({ _id: /^transaction/ }), 2);
    return "ok";
  });

  // Inserts three events, of which the stream must show each once and in order.
  const watched = async (name, between) => {
    const events = db.collection("events");
    const stream = events.watch();
    const wanted = numbers(3).map((n) => `${name} ${n}`);
    const seen = [];
    // The stream begins where the server first answered it.
    assert.equal(await stream.tryNext(), null);
    const watching = (async () => {
      while (seen.length < 3) seen.push((await stream.next()).documentKey._id);
    })();
    await events.insertOne({ _id: wanted[0] });
    await Promise.race([watching, eventually(async () => seen.length > 0)]);
    await between();
    for (const _id of wanted.slice(1)) await events.insertOne({ _id });
    await Promise.race([watching, eventually(async () => seen.length > 2)]);
    await stream.close();
    assert.deepEqual(seen, wanted);
  };
  await cell("change-stream", async () => {
    await watched("stream", async () => {});
    return "ok";
  });

  await cell("idle-pool", async () => {
    await Promise.all(numbers(5).map(() => plain.collection("many").findOne()));
    await suspend();
    await plain.collection("things").insertOne({ _id: "after the nap" });
    assert(await plain.collection("things").findOne({ _id: "after the nap" }));
    await suspend();
    assert.equal(await plain.collection("many").countDocuments(), 101);
    return "ok";
  });
  await cell("open-cursor", async () => {
    const cursor = plain.collection("many").find().sort("_id").batchSize(10);
    const found = [(await cursor.next())._id];
    await suspend();
    try {
      for await (const one of cursor) found.push(one._id);
    } catch (error) {
      if (!isCursorNotFound(error)) throw error;
      assert.equal(await plain.collection("many").countDocuments(), 101);
      return "CursorNotFound";
    }
    assert.deepEqual(found, numbers(101));
    return "completes";
  });
  await cell("open-transaction", async () => {
    try {
      await insertTwice("reopened", suspend);
    } catch (error) {
      if (!error.hasErrorLabel?.("TransientTransactionError")) throw error;
      await insertTwice("reopened", async () => {});
      return "TransientTransactionError";
    }
    return "failed: no error";
  });
  await cell("waiting-stream", async () => {
    await watched("waiting", suspend);
    return "resumes";
  });
  await client.close();
  await plain.client.close();
  process.exit(0);
}

main();
