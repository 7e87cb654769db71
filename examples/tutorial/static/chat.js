import { ReconnectingWebSocket } from "/endwell.js";

const lines = document.querySelector("#lines");
const text = document.querySelector("#text");
const state = document.querySelector("#state");

// A reload of this tab keeps the name, another tab has its own.
sessionStorage.name ??= `guest-${Math.floor(Math.random() * 10000)}`;
const ws = new ReconnectingWebSocket(`/chat?name=${encodeURIComponent(sessionStorage.name)}`);

ws.onopen = () => {
  state.textContent = `connected as ${sessionStorage.name}`;
};
ws.onmessage = ({ data }) => {
  const line = document.createElement("li");
  line.textContent = data;
  lines.append(line);
};
ws.onending = ({ ending, wait, stop }) => {
  if (stop) state.textContent = `closed: ${ending.code} ${ending.reason}`;
  else if (wait !== null) state.textContent = `${ending.reason || ending.cause}; back in ${Math.ceil(wait)} s`;
};
document.querySelector("#form").onsubmit = (event) => {
  event.preventDefault();
  if (ws.send(text.value)) text.value = "";
};
