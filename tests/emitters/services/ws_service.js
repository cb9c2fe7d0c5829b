// `URL`: a service on Node's ws whose connections report how they ended.
"use strict";

const http = require("node:http");
const { WebSocket, WebSocketServer } = require("../../peers/node/node_modules/ws");
const { Reporter, reporting } = require("../../../deploy/emitters/ws_closes.js");

const reporter = new Reporter(process.argv[2]);
const server = http.createServer();
const sockets = new WebSocketServer({ noServer: true, maxPayload: 1024, WebSocket: reporting(WebSocket, reporter) });

server.on("upgrade", (request, socket, head) => {
  if (request.url === "/refused") {
    socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    return;
  }
  sockets.handleUpgrade(request, socket, head, (connection) => {
    connection.on("error", () => {});
    connection.on("message", (data) => {
      const [command, code] = data.toString().split(" ");
      if (command === "close") connection.close(Number(code), "as asked");
      else if (command === "empty") connection.close();
      else if (command === "terminate") connection.terminate();
      else connection.send(data.toString());
    });
  });
});

process.on("SIGTERM", async () => {
  const ended = [...sockets.clients].map((client) => new Promise((resolve) => client.once("close", resolve)));
  for (const client of sockets.clients) client.close(1001);
  await Promise.all(ended);
  await reporter.close();
  process.exit(0);
});

server.listen(0, "127.0.0.1", () => console.log(`listening ${server.address().port}`));
