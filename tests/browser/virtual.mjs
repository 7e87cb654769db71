// endwell.js with a virtual clock and without a network: what a program under test does at which second.
// The first argument is the path of the module, the second one the program, an async function of `world`.

let now = 0;
let timers = [];
let number = 0;
const epoch = Date.now();
globalThis.location = { href: "http://page.example/" };
globalThis.performance = { now: () => now * 1000 };
Date.now = () => epoch + now * 1000;
Math.random = () => 0;
globalThis.setTimeout = (callback, wait) => {
  timers.push({ at: now + wait / 1000, callback, id: ++number });
  return number;
};
globalThis.clearTimeout = (id) => {
  timers = timers.filter((timer) => timer.id !== id);
};

const sockets = [];
globalThis.WebSocket = class {
  readyState = 0;
  bufferedAmount = 0;
  protocol = "";
  closed = [];
  constructor(url) {
    this.url = String(url);
    sockets.push(this);
  }
  send() {}
  close(...how) {
    this.closed.push(how);
    this.readyState = 2;
  }
  open() {
    this.readyState = 1;
    this.onopen?.();
  }
  message(data) {
    this.onmessage?.({ data });
  }
  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason, wasClean: code !== 1006 });
  }
};

const settled = () => new Promise((resolve) => setImmediate(resolve));
const due = (until) => timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
const world = {
  sockets,
  epoch,
  socket: () => sockets.at(-1),
  now: () => now,
  // Time passes, and every timer runs when it is due.
  async pass(seconds) {
    const until = now + seconds;
    for (let timer = due(until); timer; timer = due(until)) {
      clearTimeout(timer.id);
      now = Math.max(now, timer.at);
      timer.callback();
      await settled();
    }
    now = until;
  },
  // Time passes until the next attempt.
  async attempt() {
    const { length } = sockets;
    for (let i = 0; i < 1000 && sockets.length === length; i++) await world.pass(0.1);
  },
  // The machine sleeps: timers that became due run when it wakes up.
  sleep(seconds) {
    now += seconds;
  },
  settled,
};

const { ReconnectingWebSocket } = await import(process.argv[2]);
const program = new Function("world", "ReconnectingWebSocket", `return (async () => {${process.argv[3]}})()`);
console.log(JSON.stringify(await program(world, ReconnectingWebSocket)));
process.exit();
