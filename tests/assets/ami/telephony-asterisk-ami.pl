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
die "no version" unless join('', @{ $version->{Output} }) =~ /Asterisk 22/;
my $list = $ami->action({ Action => 'QueueStatus' });
die "no list" unless grep { $_->{Event} eq 'QueueMember' } @{ $list->{EventList} || [] } or $list->{Response} eq 'Success';
my $event = $ami->action({ Action => 'UserEvent', UserEvent => 'FromPerl' });
die "no event" unless $event->{Response} eq 'Success';
$ami->disconnect or die $ami->error;
print "telephony-asterisk-ami: ok\n";
