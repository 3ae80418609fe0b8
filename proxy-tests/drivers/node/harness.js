// The line protocol of ../README.md, for the programs in JavaScript.
"use strict";

const lines = require("node:readline").createInterface({ input: process.stdin })[
  Symbol.asyncIterator
]();

exports.say = (...words) => process.stdout.write(words.join(" ") + "\n");

exports.suspend = async () => {
  exports.say("SUSPEND");
  const { value } = await lines.next();
  if (value !== "done") process.exit(1);
};

exports.cell = async (name, work) => {
  const result = await work().catch((error) => `failed: ${error.name}: ${error.message}`);
  exports.say("CELL", name, result.replaceAll(/\s+/g, " "));
};

exports.eventually = async (ask) => {
  const deadline = Date.now() + 20_000;
  while (!(await ask())) {
    if (Date.now() > deadline) throw new Error("not within 20 s");
    await new Promise((wake) => setTimeout(wake, 50));
  }
};

// 0, 1, 2 …
exports.numbers = (count) => Array.from({ length: count }, (_, n) => n);

const CURSOR_NOT_FOUND = 43;
exports.isCursorNotFound = (error) => error.code === CURSOR_NOT_FOUND;
