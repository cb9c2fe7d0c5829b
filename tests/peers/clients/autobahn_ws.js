// Node's ws as the client under test of an Autobahn fuzzing server: it echoes, case by case, then ends the run.
"use strict";

const { WebSocket } = require("../node/node_modules/ws");
const url = process.argv[2];
const atOnce = 8;

function converse(path, onMessage) {
  return new Promise((resolve) => {
    const connection = new WebSocket(url + path);
    connection.on("error", () => {}); // a server that breaks the protocol is what this is about
    connection.on("message", (data, isBinary) => onMessage(connection, data, isBinary));
    connection.on("close", resolve);
  });
}

async function main() {
  let count = 0;
  await converse("/getCaseCount", (_, data) => (count = Number(data)));
  const cases = Array.from({ length: count }, (_, index) => index + 1);
  const echo = (connection, data, isBinary) => connection.send(data, { binary: isBinary });
  const runCases = async () => {
    while (cases.length) await converse(`/runCase?case=${cases.shift()}&agent=ws`, echo);
  };
  await Promise.all(Array.from({ length: atOnce }, runCases));
  await converse("/updateReports?agent=ws", () => {});
}

main();
