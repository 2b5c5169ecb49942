# The numbers themselves, without any HTTP.
package Numbers;

use strict;
use warnings;

# A random whole number from $low to $high, both included; undef if there is none.
sub any {
    my ($low, $high) = @_;
    return undef if $low > $high;
    return $low + int rand($high - $low + 1);
}

# A random even number from $low to $high, both included; undef if there is none.
sub even {
    my ($low, $high) = @_;
    my $first = $low + $low % 2;
    my $last  = $high - $high % 2;
    return undef if $first > $last;
    return 2 * any($first / 2, $last / 2);
}

# "GET /even?low=3&high=9" in, (status, body) out.
sub answer {
    my ($path, $query) = @_;
    my %choose = ('/random' => \&any, '/even' => \&even);
    return (200, '{"status": "ok"}') if $path eq '/health';
    return (404, '{"error": "try /random, /even or /health"}') unless $choose{$path};

    my %range = (low => 0, high => 100);
    for my $pair (split /&/, $query) {
        my ($name, $value) = split /=/, $pair, 2;
        return (400, '{"error": "low and high must be whole numbers"}')
            unless exists $range{$name} && defined $value && $value =~ /\A-?\d{1,9}\z/;
        $range{$name} = $value;
    }
    my $number = $choose{$path}->($range{low}, $range{high});
    return (400, '{"error": "there is no such number"}') unless defined $number;
    return (200, qq({"number": $number}));
}

1;
