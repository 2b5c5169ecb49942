#!/usr/bin/perl
# Static analysis: every file is strict and compiles without a warning.
use strict;
use warnings;

my $failed = 0;
for my $file (@ARGV) {
    open my $source, '<', $file or die "cannot read $file: $!\n";
    my $is_strict = grep { /\Ause strict;/ } <$source>;
    print "$file: `use strict` is missing\n" unless $is_strict;

    open my $compiler, '-|', "perl -wc '$file' 2>&1" or die "cannot run perl: $!\n";
    my @complaints = grep { !/ syntax OK$/ } <$compiler>;
    close $compiler;
    print @complaints;
    $failed++ if $? || @complaints || !$is_strict;
}
print @ARGV - $failed, ' of ', scalar @ARGV, " files are clean\n";
exit($failed ? 1 : 0);
