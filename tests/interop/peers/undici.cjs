// The WebSocket of undici, which is node's own.
"use strict";
const crypto = require("crypto");
const { WebSocket } = require("undici");

const [, , role, url, scenario] = process.argv;

if (role === "version") console.log(require("undici/package.json").version);

if (role === "client") {
  const ws = new WebSocket(url);
  ws.binaryType = "arraybuffer";
  const echoes = ["hello", "é".repeat(2 ** 19), crypto.randomBytes(2 ** 20)];
  const next = () => (echoes.length ? ws.send(echoes[0]) : ws.close(3001, "bye"));
  ws.onopen = () => (scenario === "client-closes" ? next() : ws.send(scenario));
  ws.onmessage = ({ data }) => {
    const sent = echoes.shift();
    if (typeof sent === "string" ? data !== sent : !sent.equals(Buffer.from(data))) process.exit(1);
    next();
  };
  ws.onclose = ({ code, reason, wasClean }) =>
    console.log(code, `'${reason}'`, wasClean ? "clean" : "not clean");
}
