// Many idle clients of the Node.js driver. See ../README.md for the line protocol; the number of
// clients comes in SOAK_CLIENTS.
"use strict";

const assert = require("node:assert/strict");
const { MongoClient } = require("mongodb");
const { numbers, say, suspend } = require("./harness");

async function main() {
  let heartbeats = 0;
  // The second URI: no error is to be hidden by a retry.
  const clients = numbers(Number(process.env.SOAK_CLIENTS)).map(() => {
    const client = new MongoClient(process.argv[3]);
    client.on("serverHeartbeatSucceeded", () => heartbeats++);
    client.on("serverHeartbeatFailed", ({ failure }) => {
      throw failure;
    });
    return client;
  });
  const things = clients.map((client) => client.db("soak").collection("things"));
  for (const one of things) await one.insertOne({ before: 1 });
  const awake = heartbeats;
  await suspend();
  say("CELL", "heartbeats", heartbeats - awake);
  for (const one of things) {
    await one.insertOne({ after: 1 });
    assert(await one.findOne({ after: 1 }));
  }
  say("CELL", "soak", "ok");
  process.exit(0);
}

main();
