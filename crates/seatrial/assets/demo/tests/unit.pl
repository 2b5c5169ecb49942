#!/usr/bin/perl
# Unit tests of Numbers. Prints TAP, and writes JUnit XML where $SEATRIAL_REPORTS says.
use strict;
use warnings;

use Numbers;

my @results;

sub test {
    my ($name, $code) = @_;
    my $problem = eval { $code->() };
    $problem = $@ if $@;
    push @results, [$name, $problem];
    printf "%s %d - %s\n", $problem ? 'not ok' : 'ok', scalar @results, $name;
    print "# $problem\n" if $problem;
}

# Gives a sentence when one of many draws is wrong, and nothing when all are right.
sub drawn {
    my ($choose, $low, $high, $is_right) = @_;
    for (1 .. 200) {
        my $number = $choose->($low, $high);
        return "drew $number from $low to $high" unless $is_right->($number);
    }
    return '';
}

sub none {
    my ($number) = @_;
    return defined $number ? "found $number" : '';
}

sub same {
    my ($has, $wanted) = @_;
    return $has eq $wanted ? '' : "`$has` instead of `$wanted`";
}

for my $range ([0, 0], [-5, 5], [7, 100]) {
    my ($low, $high) = @$range;
    test "random numbers stay from $low to $high" => sub {
        drawn(\&Numbers::any, $low, $high, sub { $low <= $_[0] && $_[0] <= $high });
    };
}
for my $range ([0, 1], [-5, -3], [-1, 101]) {
    my ($low, $high) = @$range;
    test "even numbers from $low to $high are even" => sub {
        drawn(\&Numbers::even, $low, $high, sub { $_[0] % 2 == 0 });
    };
    test "even numbers stay from $low to $high" => sub {
        drawn(\&Numbers::even, $low, $high, sub { $_[0] >= $low && $_[0] <= $high });
    };
}
test 'a range without even numbers has none' => sub { none(Numbers::even(3, 3)) };
test 'a range from high to low is empty'     => sub { none(Numbers::any(2, 1)) };

my @requests = (
    ['an unknown path is 404', '/odd',    '',               404, undef],
    ['a wrong range is 400',   '/even',   'low=x',          400, undef],
    ['an empty range is 400',  '/even',   'low=3&high=3',   400, undef],
    ['a number is JSON',       '/random', 'low=7&high=7',   200, '{"number": 7}'],
    ['a range may be below 0', '/even',   'low=-4&high=-4', 200, '{"number": -4}'],
);
for my $request (@requests) {
    my ($name, $path, $query, $status, $body) = @$request;
    test $name => sub {
        my ($has_status, $has_body) = Numbers::answer($path, $query);
        return same($has_status, $status) || (defined $body ? same($has_body, $body) : '');
    };
}

printf "1..%d\n", scalar @results;
my @failed = grep { $_->[1] } @results;
if (my $directory = $ENV{SEATRIAL_REPORTS}) {
    my %entities = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
    my $escape = sub { my $text = shift; $text =~ s/([&<>"])/$entities{$1}/g; $text };
    open my $report, '>', "$directory/unit.xml" or die "cannot write the report: $!\n";
    my ($tests, $failures) = (scalar @results, scalar @failed);
    print {$report} qq(<testsuite name="unit" tests="$tests" failures="$failures">\n);
    for my $result (@results) {
        my ($name, $problem) = map { $escape->($_) } @$result;
        my $failure = $problem ? qq(<failure message="$problem"/>) : '';
        print {$report} qq(  <testcase classname="Numbers" name="$name">$failure</testcase>\n);
    }
    print {$report} "</testsuite>\n";
    close $report or die "cannot write the report: $!\n";
}
exit(@failed ? 1 : 0);
