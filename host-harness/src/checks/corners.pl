# What a file system must answer in the corners, asked by system call (numbers of x86-64). Prints a
# line for each answer that is wrong, and last how many were asked. Usage: perl corners.pl DIR
use strict;
use warnings;
use Errno;
use Fcntl;

my ($dir) = @ARGV;
chdir $dir or die "$dir: $!\n";
my ($asked, $page) = (0, 4096);

sub is {
    my ($what, $got, $want) = @_;
    $asked++;
    $got = 'nothing' unless defined $got;
    print "$what: $got, not $want\n" if $got ne $want;
}

# The name of the error a call ends with, or "ok".
sub says {
    my ($result) = @_;
    return 'ok' if defined $result && "$result" ne '-1' && $result;
    return 'ok' if defined $result && "$result" eq '0 but true';
    for my $name (keys %!) { return $name if $!{$name} && $name ne 'EWOULDBLOCK' && $name ne 'ENOTSUP' }
    return "error $!";
}

# syscall(2) gives 0 for success, which is false here; and perl's wants no literals.
sub call {
    my ($number, @given) = @_;
    my $result = syscall $number, @given;
    for (0 .. $#given) { $_[$_ + 1] = $given[$_] unless Internals::SvREADONLY($_[$_ + 1]) }
    return $result == 0 ? '0 but true' : $result;
}

sub make {
    my ($name, $content) = @_;
    open my $file, '>', $name or die "$name: $!\n";
    print $file $content if defined $content;
    close $file or die "$name: $!\n";
}

sub content { open my $file, '<', $_[0] or return 'nothing'; local $/; my $all = <$file>; return $all }

sub opened { my ($name, $how) = @_; sysopen my $file, $name, $how // O_RDWR or die "$name: $!\n"; return $file }

# Renaming.
my $cwd = -100;
sub renameat2 { my ($from, $to, $flags) = @_; return call(316, $cwd, $from, $cwd, $to, $flags) }
make('one', 'first');
make('two', 'second');
is('RENAME_NOREPLACE onto a name', says(renameat2('one', 'two', 1)), 'EEXIST');
is('RENAME_NOREPLACE to a free name', says(renameat2('one', 'three', 1)), 'ok');
is('RENAME_EXCHANGE', says(renameat2('three', 'two', 2)), 'ok');
is('content after RENAME_EXCHANGE', content('two') . content('three'), 'firstsecond');
is('RENAME_WHITEOUT', says(renameat2('two', 'four', 4)), 'EINVAL');
mkdir $_ for 'here', 'there', 'here/inner';
make('there/file', 'x');
is('a directory for a file in RENAME_EXCHANGE', says(renameat2('here/inner', 'there/file', 2)), 'ok');
is('links of the directories afterwards', join(' ', map { (stat $_)[3] } 'here', 'there'), '2 3');
is('rmdir of a full directory', says(rmdir 'there'), 'ENOTEMPTY');
is('a directory into itself', says(rename 'there', 'there/file/deeper'), 'EINVAL');

# Names, links, sizes.
is('a name of 255 bytes', says(mkdir 'n' x 255), 'ok');
is('a name of 256 bytes', says(mkdir 'n' x 256), 'ENAMETOOLONG');
for my $length (1, 111, 112, 4064, 4065, 4095) {
    is("a symlink of $length bytes", says(symlink 'l' x $length, "link$length"), 'ok');
    is("readlink of $length bytes", length(readlink "link$length"), $length);
}
is('a symlink of 4096 bytes', says(symlink 'l' x 4096, 'linked'), 'ENAMETOOLONG');
link 'two', 'again';
is('links of a file', (stat 'two')[3], 2);
my $most = (2**32 - 2) * 4096;
my $file = opened('big', O_RDWR | O_CREAT);
sysseek $file, $most - 1, 0;
is('a byte at the very end', says(syswrite $file, 'x'), 'ok');
is('a byte beyond', says(syswrite $file, 'x'), 'EFBIG');
is('truncate beyond', says(truncate $file, $most + 1), 'EFBIG');
is('size at the very end', -s 'big', $most);
is('blocks at the very end', (stat 'big')[12] <= 16 ? 'few' : 'many', 'few');
unlink 'big';

# Holes and preallocation.
$file = opened('holes', O_RDWR | O_CREAT);
syswrite $file, 'd' x $page;
sysseek $file, 1 << 20, 0;
syswrite $file, 'd' x $page;
is('SEEK_HOLE', sysseek($file, 0, 4), $page);
is('SEEK_DATA', sysseek($file, $page, 3), 1 << 20);
is('SEEK_HOLE in the last data', sysseek($file, 1 << 20, 4), (1 << 20) + $page);
is('SEEK_DATA beyond the end', says(sysseek $file, 2 << 20, 3), 'ENXIO');
sub fallocate { my ($file, @rest) = @_; return call(285, fileno $file, @rest) }
is('fallocate', says(fallocate($file, 0, 0, 2 << 20)), 'ok');
is('size after it', -s $file, 2 << 20);
is('blocks after it', (stat $file)[12] >= 4096 ? 'enough' : 'too few', 'enough');
is('fallocate keeping the size', says(fallocate($file, 1, 2 << 20, 1 << 20)), 'ok');
is('size after that', -s $file, 2 << 20);
sysseek $file, 1 << 19, 0;
my $zeroes = "";
sysread $file, $zeroes, $page;
is('what was preallocated', $zeroes eq "\0" x $page ? 'zeroes' : 'something', 'zeroes');
is('punching a hole', says(fallocate($file, 3, 0, $page)), 'EOPNOTSUPP');
is('zeroing a range', says(fallocate($file, 16, 0, $page)), 'EOPNOTSUPP');
is('O_TMPFILE', says(sysopen(my $nameless, '.', 020200000 | O_RDWR)), 'EOPNOTSUPP');

# Extended attributes: setxattr 188, getxattr 191, listxattr 194, removexattr 197.
sub setx { my ($name, $value, $flags) = @_; return call(188, 'two', $name, $value, length $value, $flags // 0) }
is("setxattr $_", says(setx("$_.a", 'value')), 'ok') for 'user', 'trusted', 'security';
is('XATTR_CREATE of one there', says(setx('user.a', 'v', 1)), 'EEXIST');
is('XATTR_REPLACE of none', says(setx('user.b', 'v', 2)), 'ENODATA');
is('a POSIX ACL', says(setx('system.posix_acl_access', pack('V', 2))), 'EOPNOTSUPP');
is('an attribute larger than its block', says(setx('user.large', 'v' x 5000)), 'ENOSPC');
my $room = "\0" x 100;
is('getxattr into too little', says(call(191, 'two', 'user.a', $room, 2)), 'ERANGE');
is('getxattr', substr($room, 0, call(191, 'two', 'user.a', $room, 100)), 'value');
is('listxattr', join(' ', sort split /\0/, substr $room, 0, call(194, 'two', $room, 100)), 'security.a trusted.a user.a');
is('removexattr', says(call(197, 'two', 'user.a')), 'ok');
is('removexattr again', says(call(197, 'two', 'user.a')), 'ENODATA');

# Times: utimensat 280, statx 332.
sub utimens { my ($name, $sec, $nsec) = @_; my $times = pack 'q4', ($sec, $nsec) x 2; return call(280, $cwd, $name, $times, 0) }
sub statx { my $buffer = "\0" x 256; call(332, $cwd, $_[0], 0, 0xfff, $buffer); return $buffer }
for my $when (-2208988800, 16725225600) {
    make("at$when");
    is("a time of $when", says(utimens("at$when", $when, 123456789)), 'ok');
    is("seconds of $when", unpack('x112 q', statx("at$when")), $when);
    is("nanoseconds of $when", unpack('x120 V', statx("at$when")), 123456789);
}
my ($mask, $born) = unpack 'V x76 q', statx('two');
is('STATX_BTIME', $mask & 0x800 ? 'there' : 'missing', 'there');
is('birth', abs($born - time) < 600 ? 'now' : $born, 'now');

# Nodes: mknod 133.
is('mknod of a device', says(call(133, 'device', 0020600, (5 << 8) | 1)), 'ok');
is('its number', (stat 'device')[6], (5 << 8) | 1);
is('mkfifo', says(call(133, 'fifo', 0010600, 0)), 'ok');
is('mknod of a socket', says(call(133, 'socket', 0140600, 0)), 'ok');
is('types', join('', map { (-c $_ ? 'c' : '') . (-p $_ ? 'p' : '') . (-S $_ ? 's' : '') } 'device', 'fifo', 'socket'), 'cps');

# Generations: name_to_handle_at 303, open_by_handle_at 304.
my ($handle, $id) = (pack('Vl x128', 128, 0), pack 'l', 0);
make('held', 'h');
my $number = (stat 'held')[1];
is('name_to_handle_at', says(call(303, $cwd, 'held', $handle, $id, 0)), 'ok');
my $top = opened('.', O_RDONLY);
my $again = syscall(304, fileno $top, $handle, O_RDONLY);
is('open_by_handle_at', $again >= 0 ? 'ok' : says(-1), 'ok');
if ($again >= 0) { open my $same, '<&=', $again; is('inode behind a handle', (stat $same)[1], $number) }
unlink 'held';
make("new$_") for 1 .. 3;
is('handle of a deleted file', syscall(304, fileno $top, $handle, O_RDONLY) == -1 ? says(-1) : 'opened', 'ESTALE');

# Vectors. _IOW 1, _IOWR 2, _IO 3, _IOWR 4 of magic 0xf6 (vexfs/uapi/vexfs.h).
my ($SET, $GET, $REMOVE, $SEARCH) = (0x4020f601, 0xc020f602, 0xf603, 0xc040f604);
my $numbers = pack 'f4', 1, 2, 3, 4;
sub address { return unpack 'Q', pack 'P', $_[0] }
sub argument { my ($data, $dims, $flags, $reserved) = @_; return pack 'VVQQQ', $flags // 0, $dims, $data, $reserved // 0, 0 }
sub request { return call(16, fileno $_[0], $_[1], $_[2]) }
make('vector');
my $reading = opened('vector', O_RDONLY);
my $writing = opened('vector');
my $good = address($numbers);
is('a vector through a read-only file', says(request($reading, $SET, argument($good, 4))), 'EBADF');
is('getting no vector', says(request($writing, $GET, argument($good, 4))), 'ENODATA');
is('an unknown flag', says(request($writing, $SET, argument($good, 4, 1))), 'EINVAL');
is('a reserved field', says(request($writing, $SET, argument($good, 4, 0, 1))), 'EINVAL');
is("$_ numbers", says(request($writing, $SET, argument($good, $_))), 'EINVAL') for 0, 4097;
is('numbers from nowhere', says(request($writing, $SET, argument(8, 4))), 'EFAULT');
is('numbers of the kernel', says(request($writing, $SET, argument(~0xfff, 4))), 'EFAULT');
my $odd = pack 'f V f f', 1, 0x7fc00000, 3, 4;
is('not a number', says(request($writing, $SET, argument(address($odd), 4))), 'EINVAL');
is('a vector on a directory', says(request($top, $SET, argument($good, 4))), 'EINVAL');
is('a vector', says(request($writing, $SET, argument($good, 4))), 'ok');
my $asking = argument(0, 0);
is('asking for the length', says(request($reading, $GET, $asking)), 'ERANGE');
is('the length', unpack('x4 V', $asking), 4);
my $back = "\0" x 16;
is('getting it', says(request($reading, $GET, argument(address($back), 4))), 'ok');
is('what came back', $back eq $numbers ? 'the same' : 'other', 'the same');
sub searching { my ($flags, $metric, $dims, $k, $hits) = @_; return pack 'V4 QQ V2 Q Q2', $flags, $metric, $dims, $k, $good, $hits, 0, 0, 0, 0, 0 }
my $hits = "\0" x 240;
my $there = address($hits);
is('searching a file', says(request($writing, $SEARCH, searching(0, 0, 4, 1, $there))), 'ENOTDIR');
is('an unknown flag of a search', says(request($top, $SEARCH, searching(1, 0, 4, 1, $there))), 'EINVAL');
is('an unknown metric', says(request($top, $SEARCH, searching(0, 3, 4, 1, $there))), 'EINVAL');
is("$_ hits", says(request($top, $SEARCH, searching(0, 0, 4, $_, $there))), 'EINVAL') for 0, 1025;
is('hits to nowhere', says(request($top, $SEARCH, searching(0, 0, 4, 1, 8))), 'EFAULT');
# Names taken away, the first of a block too, are none.
mkdir 'search';
mkdir "search/$_" for 'gone', 'stays';
rmdir 'search/gone';
link 'vector', 'search/stays/name';
my $below = opened('search', O_RDONLY);
my $found = searching(0, 1, 4, 10, $there);
is('searching', says(request($below, $SEARCH, $found)), 'ok');
is('found and compared', join(' ', unpack 'x32 V x4 Q', $found), '1 1');
is('the inode found', unpack('Q', $hits), (stat 'vector')[1]);
is('taking it away', says(request($writing, $REMOVE, '')), 'ok');
is('taking it away again', says(request($writing, $REMOVE, '')), 'ENODATA');
is('an unknown request', says(request($writing, 0xf6ff, '')), 'ENOTTY');

print "asked $asked\n";
