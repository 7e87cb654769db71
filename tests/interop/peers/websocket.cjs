// The package called websocket: it answers every Close with 1000 and no reason. It does no deflate.
"use strict";
const crypto = require("crypto");
const http = require("http");
const { client: Client, server: Server } = require("websocket");

const [, , role, url, scenario] = process.argv;
const tell = (code, reason) => console.log(code, `'${reason}'`);
const limits = { maxReceivedFrameSize: 2 ** 21, maxReceivedMessageSize: 2 ** 21 };

if (role === "version") console.log(require("websocket/package.json").version);

if (role === "client") {
  const client = new Client(limits);
  client.on("connect", (connection) => {
    const echoes = ["hello", "é".repeat(2 ** 19), crypto.randomBytes(2 ** 20)];
    const send = (data) => (typeof data === "string" ? connection.sendUTF(data) : connection.sendBytes(data));
    const next = () => (echoes.length ? send(echoes[0]) : connection.close(3001, "bye"));
    connection.on("message", ({ utf8Data, binaryData }) => {
      if (!Buffer.from(utf8Data ?? binaryData).equals(Buffer.from(echoes.shift()))) process.exit(1);
      next();
    });
    connection.on("error", () => {});
    connection.on("close", tell);
    if (scenario === "client-closes") next();
    else connection.sendUTF(scenario);
  });
  client.connect(url);
}

if (role === "server") {
  const listener = http.createServer();
  const server = new Server({ httpServer: listener, autoAcceptConnections: true, ...limits });
  listener.listen(0, "127.0.0.1", () => console.log(listener.address().port));
  server.on("connect", (connection) => {
    connection.on("message", ({ utf8Data, binaryData }) => {
      if (utf8Data === "server-closes") connection.close(4001, "srv");
      else if (utf8Data === "server-stops") server.shutDown();
      else if (utf8Data !== undefined) connection.sendUTF(utf8Data);
      else connection.sendBytes(binaryData);
    });
    connection.on("error", () => {});
    connection.on("close", tell);
  });
}
