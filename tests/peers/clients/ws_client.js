// The test client on Node's ws; the conversation is that of commands.py.
"use strict";

const { WebSocket } = require("../node/node_modules/ws");
const { parseArgs } = require("node:util");
const readline = require("node:readline");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { limit: { type: "string" }, ping: { type: "string" } },
});

const connection = new WebSocket(positionals[0], { maxPayload: Number(values.limit ?? 0) });
connection.on("error", () => {}); // a peer that broke the protocol is closed by ws itself
connection.on("close", () => process.exit());
connection.on("message", (data, isBinary) => isBinary || console.log(`heard ${data}`));
connection.on("open", () => {
  console.log("open");
  if (values.ping !== undefined) {
    let alive = true;
    connection.on("pong", () => (alive = true));
    setInterval(() => {
      if (!alive) connection.terminate();
      alive = false;
      connection.ping();
    }, Number(values.ping) * 1000);
  }
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [command, ...rest] = line.split(" ");
  if (command === "send") {
    connection.send(rest.join(" "));
  } else if (command === "close") {
    connection.close(rest.length ? Number(rest[0]) : undefined);
  }
});
