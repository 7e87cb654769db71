# Ruby's em-websocket, a server: hixie-75, hixie-76, hybi-03, -07, -08.
require "socket"
gem "em-websocket"
require "em-websocket"

if ARGV[0] == "version"
  puts Gem.loaded_specs["em-websocket"].version
  exit
end

$stdout.sync = true
port = TCPServer.open("127.0.0.1", 0) { |free| free.addr[1] }
EM.run do
  EM::WebSocket.start(host: "127.0.0.1", port: port) do |ws|
    ws.onmessage { |text| text == "server-closes" ? ws.close : ws.send(text) }
    ws.onclose { |event| puts(event && event[:was_clean] ? "close" : "eof") }
    ws.onerror { |error| warn error }
  end
  puts port
end
