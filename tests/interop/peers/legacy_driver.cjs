// websocket-driver, a server: hixie-75, hixie-76 (since 0.8.0 they have to be asked for).
"use strict";
const net = require("net");
const websocket = require("websocket-driver");

const role = process.argv[2];
if (role === "version") console.log(require("websocket-driver/package.json").version);

if (role === "server") {
  const listening = net.createServer({ allowHalfOpen: true }, (socket) => {
    let told = "eof";
    const driver = websocket.server({ allowDrafts: true });
    driver.on("connect", () => driver.start());
    driver.on("message", ({ data }) => (data === "server-closes" ? driver.close("srv", 4001) : driver.text(data)));
    driver.on("close", () => {
      told = "close";
      socket.end();
    });
    socket.on("error", () => (told = "reset"));
    socket.on("end", () => socket.end());
    socket.on("close", () => console.log(told));
    socket.pipe(driver.io).pipe(socket);
  });
  listening.listen(0, "127.0.0.1", () => console.log(listening.address().port));
}
