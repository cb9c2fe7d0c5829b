// The test server on uWebSockets.js; the conversation is that of commands.py.
"use strict";

const uWS = require("../node/node_modules/uwebsockets");
const { parseArgs } = require("node:util");

const { values } = parseArgs({ options: { limit: { type: "string" }, ping: { type: "string" } } });

const app = uWS.App();
app.ws("/*", {
  maxPayloadLength: Number(values.limit ?? 1 << 30),
  maxBackpressure: 1 << 30,
  idleTimeout: values.ping === undefined ? 0 : 8, // the shortest it has
  sendPingsAutomatically: values.ping !== undefined,
  compression: uWS.SHARED_COMPRESSOR | uWS.SHARED_DECOMPRESSOR,
  upgrade(response, request, context) {
    if (request.getUrl() === "/refused") {
      response.writeStatus("403 Forbidden").end();
    } else {
      const [key, protocol, extensions] = ["key", "protocol", "extensions"].map((field) =>
        request.getHeader(`sec-websocket-${field}`),
      );
      response.upgrade({}, key, protocol, extensions, context);
    }
  },
  message(connection, message, isBinary) {
    const text = isBinary ? "" : Buffer.from(message).toString();
    if (text === "raise") {
      throw new Error("as asked");
    } else if (text.startsWith("close")) {
      const [, code] = text.split(" ");
      connection.end(code === undefined ? undefined : Number(code));
    } else if (text !== "return") {
      connection.send(message, isBinary);
    }
  },
});
app.listen("127.0.0.1", 0, (listener) => console.log(`listening ${uWS.us_socket_local_port(listener)}`));
