# Ruby's websocket-driver, a server: hixie-75, hixie-76, hybi-07, -08.
require "socket"
gem "websocket-driver"
require "websocket/driver"

if ARGV[0] == "version"
  puts Gem.loaded_specs["websocket-driver"].version
  exit
end

$stdout.sync = true
listening = TCPServer.new("127.0.0.1", 0)
puts listening.addr[1]
loop do
  socket = listening.accept
  told = "eof"
  driver = WebSocket::Driver.server(socket)
  driver.on(:connect) { driver.start }
  driver.on(:message) { |event| event.data == "server-closes" ? driver.close("srv", 4001) : driver.text(event.data) }
  driver.on(:close) do
    told = "close"
    socket.close_write rescue nil
  end
  begin
    loop { driver.parse(socket.readpartial(65536)) }
  rescue EOFError, IOError
  rescue Errno::ECONNRESET, Errno::EPIPE
    told = "reset"
  end
  puts told
  socket.close
end
