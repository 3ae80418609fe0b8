// mongosh, which runs this file. See ../README.md for the cells and the line protocol.
// A shell's calls wait by themselves, so its stream is asked again and again instead of waiting.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const [uri, plainUri] = process.env.ARGON_URIS.split(" ");

const say = (...words) => fs.writeSync(1, words.join(" ") + "\n");

// Opened anew, for the shell has made its own standard input one that does not wait.
const input = fs.openSync("/dev/stdin", "r");

function suspend() {
  say("SUSPEND");
  const answer = Buffer.alloc(16);
  const length = fs.readSync(input, answer);
  if (answer.toString("utf8", 0, length).trim() !== "done") process.exit(1);
}

function cell(name, work) {
  let result;
  try {
    result = work();
  } catch (error) {
    result = `failed: ${error.name}: ${error.message}`;
  }
  say("CELL", name, result.replaceAll(/\s+/g, " "));
}

function eventually(ask) {
  const deadline = Date.now() + 20_000;
  while (!ask()) {
    if (Date.now() > deadline) throw new Error("not within 20 s");
    sleep(50);
  }
}

// Arrays of the shell are of another kind than those of this file.
const same = (found, wanted) => assert.equal(JSON.stringify(found), JSON.stringify(wanted));

const numbers = (count) => Array.from({ length: count }, (_, n) => n);
const scenario = connect(uri).getSiblingDB("scenario");
const plain = connect(plainUri).getSiblingDB("scenario");
say("VERSION", `${version()}, Node.js ${process.versions.node}`);

cell("connect", () => {
  assert.equal(scenario.adminCommand({ ping: 1 }).ok, 1);
  assert.equal(scenario.things.countDocuments(), 0);
  return "ok";
});
cell("crud", () => {
  scenario.things.insertOne({ _id: 1, n: 1 });
  assert.equal(scenario.things.updateOne({ _id: 1 }, { $inc: { n: 1 } }).modifiedCount, 1);
  assert.equal(scenario.things.findOne({ _id: 1 }).n, 2);
  assert.equal(scenario.things.deleteOne({ _id: 1 }).deletedCount, 1);
  return "ok";
});
cell("retryable-write", () => {
  scenario.things.insertOne({ _id: 2 });
  assert(scenario.getSiblingDB("config").transactions.countDocuments() > 0);
  return "ok";
});
cell("bulk-write", () => {
  scenario.many.bulkWrite(numbers(100).map((_id) => ({ insertOne: { document: { _id } } })));
  const result = scenario.many.bulkWrite([
    { insertOne: { document: { _id: 100 } } },
    { updateOne: { filter: { _id: 0 }, update: { $set: { x: 1 } } } },
  ]);
  assert.equal(result.insertedCount, 1);
  assert.equal(result.modifiedCount, 1);
  return "ok";
});
cell("batches", () => {
  const found = scenario.many.find().sort({ _id: 1 }).batchSize(10).toArray();
  same(found.map((one) => one._id), numbers(101));
  return "ok";
});
cell("w0", () => {
  scenario.things.insertOne({ _id: "w0" }, { writeConcern: { w: 0 } });
  eventually(() => scenario.things.findOne({ _id: "w0" }));
  return "ok";
});

function insertTwice(name, between) {
  const session = scenario.getMongo().startSession();
  const things = session.getDatabase("scenario").things;
  try {
    session.startTransaction();
    things.insertOne({ _id: `${name} 1` });
    between();
    things.insertOne({ _id: `${name} 2` });
    session.commitTransaction();
  } finally {
    session.endSession();
  }
}
cell("transaction", () => {
  insertTwice("transaction", () => {});
  assert.equal(scenario.things.countDocuments({ _id: /^transaction/ }), 2);
  return "ok";
});

// Inserts three events, of which the stream must show each once and in order.
function watched(name, between) {
  const stream = scenario.events.watch();
  const wanted = numbers(3).map((n) => `${name} ${n}`);
  const seen = [];
  const see = (count) =>
    eventually(() => {
      const change = stream.tryNext();
      if (change) seen.push(change.documentKey._id);
      return seen.length >= count;
    });
  scenario.events.insertOne({ _id: wanted[0] });
  see(1);
  between();
  for (const _id of wanted.slice(1)) scenario.events.insertOne({ _id });
  see(3);
  stream.close();
  same(seen, wanted);
}
cell("change-stream", () => {
  watched("stream", () => {});
  return "ok";
});

cell("idle-pool", () => {
  plain.many.findOne();
  suspend();
  plain.things.insertOne({ _id: "after the nap" });
  assert(plain.things.findOne({ _id: "after the nap" }));
  suspend();
  assert.equal(plain.many.countDocuments(), 101);
  return "ok";
});
cell("open-cursor", () => {
  const cursor = plain.many.find().sort({ _id: 1 }).batchSize(10);
  const found = [cursor.next()._id];
  suspend();
  try {
    while (cursor.hasNext()) found.push(cursor.next()._id);
  } catch (error) {
    if (error.code !== 43) throw error;
    assert.equal(plain.many.countDocuments(), 101);
    return "CursorNotFound";
  }
  same(found, numbers(101));
  return "completes";
});
cell("open-transaction", () => {
  try {
    insertTwice("reopened", suspend);
  } catch (error) {
    // The shell's errors lack the driver's `hasErrorLabel`.
    const labels = error.errorResponse?.errorLabels ?? [];
    if (!labels.includes("TransientTransactionError")) throw error;
    insertTwice("reopened", () => {});
    return "TransientTransactionError";
  }
  return "failed: no error";
});
cell("waiting-stream", () => {
  watched("waiting", suspend);
  return "resumes";
});
