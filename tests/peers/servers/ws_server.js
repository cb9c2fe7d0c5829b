// The test server on Node's ws; the conversation is that of commands.py.
"use strict";

const { WebSocketServer } = require("../node/node_modules/ws");
const { parseArgs } = require("node:util");
const http = require("node:http");

const { values } = parseArgs({ options: { limit: { type: "string" }, ping: { type: "string" } } });

const server = http.createServer();
const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: Number(values.limit ?? 0),
  perMessageDeflate: true,
});

server.on("upgrade", (request, socket, head) => {
  if (request.url === "/refused") {
    socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  } else {
    sockets.handleUpgrade(request, socket, head, converse);
  }
});

function converse(connection) {
  connection.on("error", () => {}); // a peer that broke the protocol is closed by ws itself
  connection.on("message", (data, isBinary) => {
    const text = isBinary ? "" : data.toString();
    if (text === "raise") {
      throw new Error("as asked");
    } else if (text.startsWith("close")) {
      const [, code] = text.split(" ");
      connection.close(code === undefined ? undefined : Number(code));
    } else if (text !== "return") {
      connection.send(data, { binary: isBinary });
    }
  });
  if (values.ping !== undefined) {
    let alive = true;
    connection.on("pong", () => (alive = true));
    const timer = setInterval(() => {
      if (!alive) connection.terminate();
      alive = false;
      connection.ping();
    }, Number(values.ping) * 1000);
    connection.on("close", () => clearInterval(timer));
  }
}

server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
