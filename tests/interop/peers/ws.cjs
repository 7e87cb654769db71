// ws, both roles, with compression switched on in its server (in its client it is by default).
"use strict";
const crypto = require("crypto");
const WebSocket = require("ws");

const [, , role, url, scenario] = process.argv;
const tell = (code, reason) => console.log(code, `'${reason}'`);

if (role === "version") console.log(require("ws/package.json").version);

if (role === "client") {
  const ws = new WebSocket(url);
  const echoes = ["hello", "é".repeat(2 ** 19), crypto.randomBytes(2 ** 20)];
  const next = () => (echoes.length ? ws.send(echoes[0]) : ws.close(3001, "bye"));
  ws.on("open", () => (scenario === "client-closes" ? next() : ws.send(scenario)));
  ws.on("message", (data) => {
    if (!data.equals(Buffer.from(echoes.shift()))) process.exit(1);
    next();
  });
  ws.on("error", (error) => console.error(error));
  ws.on("close", tell);
}

if (role === "server") {
  const server = new WebSocket.Server({ host: "127.0.0.1", port: 0, perMessageDeflate: true });
  server.on("listening", () => console.log(server.address().port));
  server.on("connection", (ws) => {
    ws.on("message", (data, isBinary) => {
      if (String(data) === "server-closes") ws.close(4001, "srv");
      else if (String(data) === "server-stops") {
        server.close();
        for (const client of server.clients) client.close(1001, "stopping");
      } else ws.send(data, { binary: isBinary });
    });
    ws.on("error", () => {});
    ws.on("close", tell);
  });
}
