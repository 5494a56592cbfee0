# Telephony::Asterisk::AMI, as its documentation has it: a ping, a command, a list, events.
use strict;
use warnings;
use Telephony::Asterisk::AMI;

my ($host, $port, $user, $secret) = @ARGV;
alarm 40;
my @events;
my $ami = Telephony::Asterisk::AMI->new(
    Host => $host, Port => $port, Username => $user, Secret => $secret,
    Event_Callback => sub { push @events, $_[0]{Event} },
);
$ami->connect or die $ami->error;
my $pong = $ami->action({ Action => 'Ping' }) or die $ami->error;
die "no pong" unless $pong->{Ping} eq 'Pong';
my $version = $ami->action({ Action => 'Command', Command => 'core show version' });
# One line of output is a text, several are a list.
my $output = $version->{Output};
die "no version" unless join('', ref $output ? @$output : $output) =~ /Asterisk 22/;
my $list = $ami->action({ Action => 'QueueStatus' });
die "no list" unless $list->{Response} eq 'Success';
my $event = $ami->action({ Action => 'UserEvent', UserEvent => 'FromPerl' });
die "no event" unless $event->{Response} eq 'Success';
# What belongs to the list came to the callback, before the next answer.
die "no members" unless grep { $_ eq 'QueueMember' } @events;
$ami->disconnect or die $ami->error;
print "telephony-asterisk-ami: ok\n";
