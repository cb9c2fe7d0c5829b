// Node's ws: new WebSocketServer({ port, WebSocket: reporting(WebSocket, new Reporter(URL)) })
"use strict";

const { randomUUID } = require("node:crypto");
const { setTimeout: sleep } = require("node:timers/promises");

// Keeps up to `most` events until the exporter has taken them. `headers(body)` makes what each attempt has to carry.
class Reporter {
  dropped = 0;
  #waiting = [];
  #delivering = null;

  constructor(url, { headers = () => ({}), most = 10000 } = {}) {
    Object.assign(this, { url, headers, most });
  }

  // Never waits, never throws: what finds no room is dropped and counted.
  report(event) {
    if (this.#waiting.length >= this.most) {
      this.dropped += 1;
      return;
    }
    this.#waiting.push({ id: randomUUID(), time: Date.now(), ...event });
    this.#delivering ??= this.#deliver();
  }

  // The last thing that a service does: wait until everything is delivered, for some milliseconds at most.
  async close(timeout = 5000) {
    const timer = new AbortController();
    await Promise.race([this.#delivering, sleep(timeout, undefined, timer)]);
    timer.abort();
  }

  async #deliver() {
    await null;
    while (this.#waiting.length > 0) {
      const count = Math.min(this.#waiting.length, 500);
      const body = JSON.stringify(this.#waiting.slice(0, count));
      for (let longest = 500; !(await this.#taken(body)); longest = Math.min(2 * longest, 30000)) {
        await sleep(Math.random() * longest, undefined, { ref: false });
      }
      this.#waiting.splice(0, count);
    }
    this.#delivering = null;
  }

  // Whether the exporter has taken or refused it. If not, the same is sent again, ids and all.
  async #taken(body) {
    try {
      const headers = { "Content-Type": "application/json", ...this.headers(body) };
      const response = await fetch(this.url, { method: "POST", body, headers, signal: AbortSignal.timeout(10000) });
      const answer = await response.text();
      if ([408, 429].includes(response.status) || response.status >= 500) {
        await sleep(1000 * Number(response.headers.get("Retry-After") ?? 0), undefined, { ref: false });
        return false;
      }
      if (!response.ok || /"rejected": ?[1-9]/.test(answer)) console.error("closes refused:", response.status, answer);
    } catch (error) {
      console.error("closes not delivered yet:", error.cause?.message ?? error.message);
      return false;
    }
    return true;
  }
}

// A class of WebSockets that report that they opened and how they ended, for a server's option WebSocket.
// A client that returns is recognised by its address. ws tells this class nothing else of the request; behind a proxy
// all clients have one address, and are better not told apart: reporting(WebSocket, reporter, () => undefined).
function reporting(WebSocket, reporter, client = (socket) => socket.remoteAddress) {
  return class extends WebSocket {
    #opened = Date.now();
    #own = null; // what this side sent first
    #client;

    constructor(...parameters) {
      super(...parameters);
      this.once("close", (code, reason) => {
        // Without any Close frame it was not this side: ws itself and terminate() pass through below.
        const close = this.#own ?? { code, reason: reason.toString(), initiator: "client" };
        reporter.report({ ...close, duration: (Date.now() - this.#opened) / 1000, client: this.#client });
      });
    }

    // ws calls this once it has answered 101.
    setSocket(socket, ...parameters) {
      this.#client = client(socket);
      reporter.report({ event: "open", client: this.#client });
      super.setSocket(socket, ...parameters);
    }

    close(code, reason) {
      // ws calls this to answer the client's Close frame, too, and to refuse a frame: then "close" would tell of 1006.
      if (this.readyState === WebSocket.OPEN && !this._closeFrameReceived) {
        this.#own ??= { code: code ?? 1005, reason: reason?.toString(), initiator: "server" };
      }
      super.close(code, reason);
    }

    terminate() {
      this.#own ??= { code: 1006, initiator: "server" };
      super.terminate();
    }
  };
}

module.exports = { Reporter, reporting };
