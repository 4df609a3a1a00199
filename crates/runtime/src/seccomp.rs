//! Docker's default filter of system calls, as a BPF program of our own making.
//!
//! The profile is kept the short way round: [`crate::syscall_table`] lists what is *not* simply allowed, and up to
//! which number calls are known. Below that number everything else is allowed; above it the answer is ENOSYS, so that
//! programs fall back, as libseccomp answers for docker. Refusals are EPERM. The kernel evaluates the program once for
//! each number when it is loaded and remembers the calls that are always allowed, so its length costs little later.

use mica_sys::process::BpfInstruction;

use crate::capability::CapabilitySet;
use crate::syscall_table::{Condition, LAST_KNOWN, RULES, Rule};

const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_BITS: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000; // SECCOMP_RET_ALLOW
const ERRNO: u32 = 0x0005_0000; // SECCOMP_RET_ERRNO
const NOTIFY: u32 = 0x7fc0_0000; // SECCOMP_RET_USER_NOTIF
const KILL: u32 = 0x8000_0000; // SECCOMP_RET_KILL_PROCESS

// Offsets in `struct seccomp_data`; the words of the arguments are little-endian on every platform below.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENT_0_LOW: u32 = 16;
const ARGUMENT_0_HIGH: u32 = 20;

/// All CLONE_NEW* that docker refuses in clone(2), including CLONE_NEWCGROUP.
const CLONE_NAMESPACES: u32 = 0x7e02_0000;
/// AF_VSOCK: it would reach past the network namespace.
const AF_VSOCK: u32 = 40;
/// PER_LINUX, PER_LINUX32, UNAME26 with each, and the question for the current value.
const PERSONALITIES: [u32; 5] = [0, 8, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// Rules that are tested one after the other. The kernel runs the program once per call number when it is loaded, so
/// the longest way through it counts: 0.28 ms for 68 rules in a row, 0.15 ms in chunks.
const CHUNK_RULES: usize = 8;

/// A platform a program can be of: AUDIT_ARCH_* and the column of its numbers.
#[derive(Clone, Copy)]
pub(crate) struct Platform {
    audit: u32,
    number: fn(&Rule) -> Option<u32>,
}

const X86_64: Platform = Platform { audit: 0xc000_003e, number: |rule| rule.x86_64 };
const I386: Platform = Platform { audit: 0x4000_0003, number: |rule| rule.i386 };
const AARCH64: Platform = Platform { audit: 0xc000_00b7, number: |rule| rule.aarch64 };

/// The filter for a process with these capabilities, for the platform this program is built for and its 32-bit kin.
pub(crate) fn default_filter(capabilities: CapabilitySet) -> Vec<BpfInstruction> {
    let platforms: &[Platform] = if cfg!(target_arch = "aarch64") { &[AARCH64] } else { &[X86_64, I386] };
    filter(platforms, capabilities)
}

fn filter(platforms: &[Platform], capabilities: CapabilitySet) -> Vec<BpfInstruction> {
    let mut program = vec![statement(LOAD_WORD, ARCHITECTURE)];
    for platform in platforms {
        let body = platform_filter(*platform, capabilities);
        // A conditional jump reaches 255 instructions; the unconditional one behind it reaches all.
        program.push(jump(JUMP_EQUAL, platform.audit, 1, 0));
        program.push(statement(0x05, u32::try_from(body.len()).unwrap_or(u32::MAX))); // BPF_JMP | BPF_JA
        program.extend(body);
    }
    program.push(statement(RETURN, KILL));
    program
}

fn platform_filter(platform: Platform, capabilities: CapabilitySet) -> Vec<BpfInstruction> {
    let mut program = vec![
        statement(LOAD_WORD, NUMBER),
        // x32 numbers, beginning at 0x40000000, are beyond the last too.
        jump(JUMP_GREATER, LAST_KNOWN, 0, 1),
        statement(RETURN, ERRNO | libc::ENOSYS as u32),
    ];
    let mut rules: Vec<(u32, &Rule)> = RULES
        .iter()
        .filter(|rule| !rule.capabilities.iter().any(|name| capabilities.has_name(name)))
        .filter_map(|rule| Some(((platform.number)(rule)?, rule)))
        .collect();
    rules.sort_unstable_by_key(|(number, _)| *number);
    for chunk in rules.chunks(CHUNK_RULES) {
        let body = chunk_filter(chunk);
        let last = chunk.last().map_or(0, |(number, _)| *number);
        // Numbers beyond the chunk skip it; those within it end in it.
        program.push(jump(JUMP_GREATER, last, u8::try_from(body.len()).unwrap_or(u8::MAX), 0));
        program.extend(body);
    }
    program.push(statement(RETURN, ALLOW));
    program
}

fn chunk_filter(rules: &[(u32, &Rule)]) -> Vec<BpfInstruction> {
    let mut program = Vec::new();
    for (number, rule) in rules {
        let action = match rule.condition {
            Condition::Refused => vec![statement(RETURN, ERRNO | libc::EPERM as u32)],
            Condition::Unknown => vec![statement(RETURN, ERRNO | libc::ENOSYS as u32)],
            Condition::CloneWithoutNamespaces => vec![
                statement(LOAD_WORD, ARGUMENT_0_LOW),
                jump(JUMP_BITS, CLONE_NAMESPACES, 0, 1),
                statement(RETURN, ERRNO | libc::EPERM as u32),
                statement(RETURN, ALLOW),
            ],
            Condition::SocketNotVsock => vec![
                statement(LOAD_WORD, ARGUMENT_0_LOW),
                jump(JUMP_EQUAL, AF_VSOCK, 0, 1),
                statement(RETURN, ERRNO | libc::EPERM as u32),
                statement(RETURN, ALLOW),
            ],
            Condition::KnownPersonality => personality_action(),
        };
        program.push(jump(JUMP_EQUAL, *number, 0, u8::try_from(action.len()).unwrap_or(u8::MAX)));
        program.extend(action);
    }
    program.push(statement(RETURN, ALLOW));
    program
}

fn personality_action() -> Vec<BpfInstruction> {
    let count = PERSONALITIES.len() as u8;
    let mut action = vec![
        statement(LOAD_WORD, ARGUMENT_0_HIGH),
        jump(JUMP_EQUAL, 0, 0, count + 1),
        statement(LOAD_WORD, ARGUMENT_0_LOW),
    ];
    for (position, value) in PERSONALITIES.iter().enumerate() {
        // Over the tests that are left, and over the refusal.
        action.push(jump(JUMP_EQUAL, *value, count - position as u8, 0));
    }
    action.push(statement(RETURN, ERRNO | libc::EPERM as u32));
    action.push(statement(RETURN, ALLOW));
    action
}

const fn statement(code: u16, value: u32) -> BpfInstruction {
    BpfInstruction { code, jump_true: 0, jump_false: 0, value }
}

const fn jump(code: u16, value: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction { code, jump_true, jump_false, value }
}

/// How a platform opens sockets.
struct SocketCalls {
    audit: u32,
    /// Numbers of socket(2), those of x32 too.
    socket: &'static [u32],
    /// Number of socketcall(2), whose arguments lie in memory but for which call it is.
    socketcall: Option<u32>,
}

const SOCKET_CALLS: &[SocketCalls] = if cfg!(target_arch = "aarch64") {
    &[
        SocketCalls { audit: AARCH64.audit, socket: &[198], socketcall: None },
        SocketCalls { audit: 0x4000_0028, socket: &[281], socketcall: Some(102) },
    ]
} else {
    &[
        SocketCalls { audit: X86_64.audit, socket: &[41, 0x4000_0029], socketcall: None },
        SocketCalls { audit: I386.audit, socket: &[359], socketcall: Some(102) },
    ]
};

/// io_uring_setup(2) of all platforms, and of x32: a ring opens sockets past every filter.
const IO_URING_SETUP: [u32; 2] = [425, 0x4000_01a9];
/// SYS_SOCKET of socketcall(2).
const SOCKETCALL_SOCKET: u32 = 1;
/// AF_UNSPEC (refused anyway), AF_UNIX, AF_NETLINK, AF_ALG: they end in this kernel. All others may reach the network.
const LOCAL_FAMILIES: [u32; 4] = [0, 1, 16, 38];

/// The filter that tells its listener of every call that may open a way to the network, and lets all others pass.
pub(crate) fn socket_filter() -> Vec<BpfInstruction> {
    let mut program = vec![statement(LOAD_WORD, ARCHITECTURE)];
    for calls in SOCKET_CALLS {
        let body = socket_platform_filter(calls);
        program.push(jump(JUMP_EQUAL, calls.audit, 0, u8::try_from(body.len()).unwrap_or(u8::MAX)));
        program.extend(body);
    }
    program.push(statement(RETURN, ALLOW));
    program
}

fn socket_platform_filter(calls: &SocketCalls) -> Vec<BpfInstruction> {
    let mut program = vec![statement(LOAD_WORD, NUMBER)];
    for number in IO_URING_SETUP {
        program.extend([jump(JUMP_EQUAL, number, 0, 1), statement(RETURN, NOTIFY)]);
    }
    let mut family = vec![statement(LOAD_WORD, ARGUMENT_0_LOW)];
    for local in LOCAL_FAMILIES {
        family.extend([jump(JUMP_EQUAL, local, 0, 1), statement(RETURN, ALLOW)]);
    }
    family.push(statement(RETURN, NOTIFY));
    for number in calls.socket {
        program.push(jump(JUMP_EQUAL, *number, 0, family.len() as u8));
        program.extend(family.iter().copied());
    }
    if let Some(number) = calls.socketcall {
        program.extend([
            jump(JUMP_EQUAL, number, 0, 3),
            statement(LOAD_WORD, ARGUMENT_0_LOW),
            jump(JUMP_EQUAL, SOCKETCALL_SOCKET, 0, 1),
            statement(RETURN, NOTIFY),
        ]);
    }
    program.push(statement(RETURN, ALLOW));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, on the architecture, the number and the first argument of a call.
    fn evaluate(program: &[BpfInstruction], architecture: u32, number: u32, argument: u64) -> u32 {
        let (mut position, mut register) = (0, 0);
        for _ in 0..10_000 {
            let BpfInstruction { code, jump_true, jump_false, value } = program[position];
            let test = match code {
                LOAD_WORD => {
                    register = match value {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        ARGUMENT_0_LOW => argument as u32,
                        ARGUMENT_0_HIGH => (argument >> 32) as u32,
                        _ => panic!("load of {value}"),
                    };
                    None
                }
                RETURN => return value,
                0x05 => {
                    position += value as usize;
                    None
                }
                JUMP_EQUAL => Some(register == value),
                JUMP_GREATER => Some(register > value),
                JUMP_BITS => Some(register & value != 0),
                _ => panic!("code {code}"),
            };
            position += 1 + test.map_or(0, |test| usize::from(if test { jump_true } else { jump_false }));
        }
        panic!("the program does not end")
    }

    const EPERM: u32 = ERRNO | 1;
    const ENOSYS: u32 = ERRNO | 38;

    #[test]
    fn calls_are_answered_as_docker_answers_them() {
        let default = CapabilitySet::DEFAULT;
        let admin = default.with(CapabilitySet(1 << 21));
        let (x, i, a) = (X86_64.audit, I386.audit, AARCH64.audit);
        for (name, architecture, number, argument, capabilities, expected) in [
            ("read", x, 0, 0, default, ALLOW),
            ("execve", x, 59, 0, default, ALLOW),
            ("clone of a thread", x, 56, 0x003d_0f00, default, ALLOW),
            ("clone with NEWUSER", x, 56, 0x1000_0011, default, EPERM),
            ("clone with NEWNS", x, 56, 0x0002_0011, default, EPERM),
            ("clone with NEWUSER, SYS_ADMIN", x, 56, 0x1000_0011, admin, ALLOW),
            ("clone3", x, 435, 0, default, ENOSYS),
            ("clone3, SYS_ADMIN", x, 435, 0, admin, ALLOW),
            ("unshare", x, 272, 0, default, EPERM),
            ("mount", x, 165, 0, default, EPERM),
            ("mount, SYS_ADMIN", x, 165, 0, admin, ALLOW),
            ("keyctl, SYS_ADMIN", x, 250, 0, admin, EPERM),
            ("chroot", x, 161, 0, default, ALLOW),
            ("chroot, nothing", x, 161, 0, CapabilitySet::NONE, EPERM),
            ("io_uring_setup", x, 425, 0, default, EPERM),
            ("userfaultfd", x, 323, 0, default, EPERM),
            ("socket AF_INET", x, 41, 2, default, ALLOW),
            ("socket AF_VSOCK", x, 41, 40, default, EPERM),
            ("socket AF_VSOCK in dirty register", x, 41, 0xdead_0000_0028, default, EPERM),
            ("personality query", x, 135, 0xffff_ffff, default, ALLOW),
            ("personality ADDR_NO_RANDOMIZE", x, 135, 0x0004_0000, default, EPERM),
            ("personality high", x, 135, 0x1_0000_0000, default, EPERM),
            ("personality 32", x, 135, 8, default, ALLOW),
            ("an unknown call", x, 468, 0, default, ENOSYS),
            ("an x32 call", x, 0x4000_0000, 0, default, ENOSYS),
            ("mount of i386", i, 21, 0, default, EPERM),
            ("umount of i386", i, 22, 0, default, EPERM),
            ("read of i386", i, 3, 0, default, ALLOW),
            ("socketcall of i386", i, 102, 0, default, ALLOW),
            ("mount of aarch64", a, 40, 0, default, EPERM),
            ("clone of aarch64", a, 220, 0x11, default, ALLOW),
            ("clone NEWNET of aarch64", a, 220, 0x4000_0011, default, EPERM),
            ("another architecture", 0x4000_0028, 0, 0, default, KILL),
        ] {
            let platforms: &[Platform] = if architecture == a { &[AARCH64] } else { &[X86_64, I386] };
            let program = filter(platforms, capabilities);
            assert_eq!(evaluate(&program, architecture, number, argument), expected, "{name}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn ways_to_the_network_are_told_of() {
        let (x, i) = (X86_64.audit, I386.audit);
        for (name, architecture, number, argument, expected) in [
            ("read", x, 0, 2, ALLOW),
            ("socket AF_UNSPEC", x, 41, 0, ALLOW),
            ("socket AF_UNIX", x, 41, 1, ALLOW),
            ("socket AF_UNIX in dirty register", x, 41, 0x2_0000_0001, ALLOW),
            ("socket AF_NETLINK", x, 41, 16, ALLOW),
            ("socket AF_ALG", x, 41, 38, ALLOW),
            ("socket AF_INET", x, 41, 2, NOTIFY),
            ("socket AF_INET6", x, 41, 10, NOTIFY),
            ("socket AF_PACKET", x, 41, 17, NOTIFY),
            ("socket AF_SMC", x, 41, 43, NOTIFY),
            ("socket AF_INET in dirty register", x, 41, 0x1_0000_0002, NOTIFY),
            ("connect", x, 42, 2, ALLOW),
            ("socket of x32", x, 0x4000_0029, 2, NOTIFY),
            ("io_uring_setup", x, 425, 0, NOTIFY),
            ("io_uring_setup of x32", x, 0x4000_0000 + 425, 0, NOTIFY),
            ("number 41 of i386", i, 41, 2, ALLOW),
            ("socket of i386, AF_INET", i, 359, 2, NOTIFY),
            ("socket of i386, AF_UNIX", i, 359, 1, ALLOW),
            ("socketcall of i386, socket", i, 102, 1, NOTIFY),
            ("socketcall of i386, bind", i, 102, 2, ALLOW),
            ("io_uring_setup of i386", i, 425, 0, NOTIFY),
            ("another architecture", 0x4000_0028, 41, 2, ALLOW),
        ] {
            assert_eq!(evaluate(&socket_filter(), architecture, number, argument), expected, "{name}");
        }
    }

    #[test]
    fn every_rule_has_its_number_once() {
        for platform in [X86_64, I386, AARCH64] {
            let mut numbers: Vec<u32> = RULES.iter().filter_map(|rule| (platform.number)(rule)).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count);
            assert!(numbers.iter().all(|number| *number <= LAST_KNOWN));
        }
    }

    #[test]
    fn the_capabilities_of_rules_exist() {
        for rule in RULES {
            for name in rule.capabilities {
                assert!(CapabilitySet::parse_name(name).is_some(), "{name} of {}", rule.name);
            }
        }
    }
}
