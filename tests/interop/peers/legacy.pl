# Perl's Protocol::WebSocket, both roles: hixie-75, hixie-76, hybi-08 (which it calls -10).
use strict;
use warnings;
use utf8;
use IO::Socket::INET;
use Protocol::WebSocket;
use Protocol::WebSocket::Frame;
use Protocol::WebSocket::Handshake::Client;
use Protocol::WebSocket::Handshake::Server;

$| = 1;
$SIG{PIPE} = 'IGNORE';
my %names = ('hixie-75' => 'draft-hixie-75', 'hixie-76' => 'draft-ietf-hybi-00', 'hybi-08' => 'draft-ietf-hybi-10');
my ($role, $url, $version, $scenario) = @ARGV;

# Hand each message to the callback until it says it is done, or TCP ends; how it ended.
sub converse {
    my ($socket, $name, $masked, $rest, $on_message) = @_;
    my $say = sub { $socket->syswrite(Protocol::WebSocket::Frame->new(version => $name, masked => $masked, @_)->to_bytes) };
    my $frames = Protocol::WebSocket::Frame->new(version => $name, max_payload_size => 0);
    my ($closed, $told) = (0, 'eof');
    $frames->append($rest);
    $on_message->($say, undef, \$closed);
    while (1) {
        while (defined(my $text = $frames->next)) {
            if ($frames->is_close) {
                $told = 'close';
                $say->(type => 'close') unless $closed++;
            }
            else { $on_message->($say, $text, \$closed) }
        }
        my $read = $socket->sysread(my $data, 65536);
        return $told eq 'eof' ? 'reset' : $told unless defined $read;
        return $told unless $read;
        $frames->append($data);
    }
}

if ($role eq 'version') { print Protocol::WebSocket->VERSION, "\n" }

if ($role eq 'client') {
    my ($port) = $url =~ /:(\d+)/;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die $!;
    my $handshake = Protocol::WebSocket::Handshake::Client->new(url => $url, version => $names{$version});
    $handshake->req->origin("http://127.0.0.1:$port");
    $socket->syswrite($handshake->to_string);
    my $rest = '';
    until ($handshake->is_done) {
        $socket->sysread($rest, 65536, length $rest) or die 'no answer';
        $handshake->parse($rest) or die $handshake->error;
    }
    my @echoes = ('hello', 'é' x 20000);
    print converse($socket, $names{$version}, $version eq 'hybi-08', $rest, sub {
        my ($say, $text, $closed) = @_;
        return $say->(buffer => $scenario) if !defined $text && $scenario ne 'client-closes';
        die 'the echo differs' if defined $text && $text ne shift @echoes;
        if (@echoes) { $say->(buffer => $echoes[0]) }
        elsif (!$$closed++) {
            $say->(type => 'close');
        }
    }), "\n";
}

if ($role eq 'server') {
    my $listening = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5) or die $!;
    print $listening->sockport, "\n";
    while (my $socket = $listening->accept) {
        my $handshake = Protocol::WebSocket::Handshake::Server->new;
        my $rest = '';
        until ($handshake->is_done) {
            $socket->sysread($rest, 65536, length $rest) or die 'no request';
            $handshake->parse($rest) or die $handshake->error;
        }
        $socket->syswrite($handshake->to_string);
        print converse($socket, $handshake->version, 0, $rest, sub {
            my ($say, $text, $closed) = @_;
            return unless defined $text;
            if ($text eq 'server-closes') { $say->(type => 'close') unless $$closed++; $socket->shutdown(1) if $handshake->version eq 'draft-hixie-75' }
            else { $say->(buffer => $text) }
        }), "\n";
        $socket->close;
    }
}
