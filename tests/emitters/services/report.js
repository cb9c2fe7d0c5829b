// What report.py does, with the reporter for Node.
"use strict";

const { parseArgs } = require("node:util");
const { Reporter } = require("../../../deploy/emitters/ws_closes.js");

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    count: { type: "string" },
    code: { type: "string" },
    most: { type: "string" },
    password: { type: "string" },
  },
});

const headers = () =>
  values.password ? { Authorization: `Basic ${Buffer.from(values.password).toString("base64")}` } : {};
const reporter = new Reporter(positionals[0], { most: Number(values.most ?? 10000), headers });
const began = performance.now();
for (let number = 0; number < Number(values.count ?? 1); number++) {
  reporter.report({ code: Number(values.code ?? 1000), initiator: "client", duration: 1.5 });
}
console.log("took", (performance.now() - began) / 1000);
console.log("dropped", reporter.dropped);
reporter.close(40000).then(() => console.log("closed"));
