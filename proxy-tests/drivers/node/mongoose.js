// Mongoose. See ../README.md for the cells and the line protocol.
"use strict";

const assert = require("node:assert/strict");
const mongoose = require("mongoose");
const { cell, eventually, isCursorNotFound, numbers, say, suspend } = require("./harness");

const models = (connection) => {
  const schema = (fields) => new mongoose.Schema(fields, { versionKey: false });
  const model = (name, fields) => connection.model(name, schema(fields), name);
  return {
    things: model("things", { _id: mongoose.Schema.Types.Mixed, n: Number }),
    many: model("many", { _id: Number, x: Number }),
    events: model("events", { _id: String }),
  };
};

async function main() {
  const [uri, plainUri] = process.argv.slice(2);
  const options = { dbName: "scenario", autoCreate: false, autoIndex: false };
  const connection = await mongoose.createConnection(uri, options).asPromise();
  const plainConnection = await mongoose.createConnection(plainUri, options).asPromise();
  const { things, many, events } = models(connection);
  const plain = models(plainConnection);
  say("VERSION", `${mongoose.version}, Node.js ${process.versions.node}`);

  await cell("connect", async () => {
    assert.equal((await connection.db.admin().ping()).ok, 1);
    assert.equal(await things.countDocuments(), 0);
    return "ok";
  });
  await cell("crud", async () => {
    const one = await things.create({ _id: 1, n: 1 });
    one.n = 2;
    await one.save();
    assert.equal((await things.findById(1)).n, 2);
    assert.equal((await things.deleteOne({ _id: 1 })).deletedCount, 1);
    return "ok";
  });
  await cell("retryable-write", async () => {
    await things.create({ _id: 2 });
    const config = connection.useDb("config").collection("transactions");
    assert((await config.countDocuments()) > 0);
    return "ok";
  });
  await cell("bulk-write", async () => {
    await many.insertMany(numbers(100).map((_id) => ({ _id })));
    const result = await many.bulkWrite([
      { insertOne: { document: { _id: 100 } } },
      { updateOne: { filter: { _id: 0 }, update: { $set: { x: 1 } } } },
    ]);
    assert.deepEqual([result.insertedCount, result.modifiedCount], [1, 1]);
    return "ok";
  });
  await cell("batches", async () => {
    const found = await many.find().sort("_id").batchSize(10);
    assert.deepEqual(found.map((one) => one._id), numbers(101));
    return "ok";
  });
  await cell("w0", async () => {
    await things.insertMany([{ _id: "w0" }], { writeConcern: { w: 0 } });
    await eventually(() => things.findById("w0"));
    return "ok";
  });

  const insertTwice = async (name, between) => {
    const session = await connection.startSession();
    try {
      session.startTransaction();
      await things.create([{ _id: `${name} 1` }], { session });
      await between();
      await things.create([{ _id: `${name} 2` }], { session });
      await session.commitTransaction();
    } finally {
      await session.endSession();
    }
  };
  await cell("transaction", async () => {
    await insertTwice("transaction", async () => {});
    assert.equal(await things.countDocuments({ _id: /^transaction/ }), 2);
    return "ok";
  });

  // Inserts three events, of which the stream must show each once and in order.
  const watched = async (name, between) => {
    const stream = events.watch();
    const wanted = numbers(3).map((n) => `${name} ${n}`);
    const seen = [];
    const failed = [];
    stream.on("error", (error) => failed.push(error));
    await new Promise((ready) => stream.once("ready", ready));
    stream.on("change", (change) => seen.push(change.documentKey._id));
    const see = (count) =>
      eventually(async () => {
        if (failed.length) throw failed[0];
        return seen.length >= count;
      });
    // When a stream with listeners has begun is not told, so events come until one is seen.
    const first = [];
    await eventually(async () => {
      if (failed.length) throw failed[0];
      if (!seen.length) await events.create({ _id: first[first.push(`${name} first ${first.length}`) - 1] });
      return seen.length > 0;
    });
    const start = first.indexOf(seen[0]);
    await see(first.length - start);
    await between();
    for (const _id of wanted) await events.create({ _id });
    await see(first.length - start + wanted.length);
    await stream.close();
    assert.deepEqual(seen, [...first.slice(start), ...wanted]);
  };
  await cell("change-stream", async () => {
    await watched("stream", async () => {});
    return "ok";
  });

  await cell("idle-pool", async () => {
    await Promise.all(numbers(5).map(() => plain.many.findOne()));
    await suspend();
    await plain.things.create({ _id: "after the nap" });
    assert(await plain.things.findById("after the nap"));
    await suspend();
    assert.equal(await plain.many.countDocuments(), 101);
    return "ok";
  });
  await cell("open-cursor", async () => {
    const cursor = plain.many.find().sort("_id").batchSize(10).cursor();
    const found = [(await cursor.next())._id];
    await suspend();
    try {
      for await (const one of cursor) found.push(one._id);
    } catch (error) {
      if (!isCursorNotFound(error)) throw error;
      assert.equal(await plain.many.countDocuments(), 101);
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
  await connection.close();
  await plainConnection.close();
  process.exit(0);
}

main();
