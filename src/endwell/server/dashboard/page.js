import { ReconnectingWebSocket } from "./endwell.js";

const url = new URL("feed", location.href);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
const feed = new ReconnectingWebSocket(url.href, { protocols: "endwell.feed.1" });
feed.onopen = () => feed.send(JSON.stringify({ ask: "summary", id: 1, every: 1 }));
feed.onmessage = (event) => {
  const { summary } = JSON.parse(event.data);
  if (summary) document.getElementById("summary").textContent = JSON.stringify(summary, null, 2);
};
