//! System calls that docker's default profile does not simply allow, with their numbers on the platforms we filter.
//!
//! Numbers are from the kernel's arch/x86/entry/syscalls/syscall_{64,32}.tbl and include/uapi/asm-generic/unistd.h; up
//! to [`LAST_KNOWN`] they are complete. A call that a newer kernel adds is unknown (ENOSYS) until that number is raised
//! here, and the call, if it is to be refused, is listed.

/// Highest call number the table was made for; the same on all platforms since 5.0 (`open_tree_attr`).
pub(crate) const LAST_KNOWN: u32 = 467;

/// When a listed call is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    /// Never (EPERM).
    Refused,
    /// Never, and as if the kernel did not have it (ENOSYS): its flags lie in memory, where no filter can look, and
    /// the C libraries then use clone(2).
    Unknown,
    /// When it makes no namespace.
    CloneWithoutNamespaces,
    /// For every family but AF_VSOCK.
    SocketNotVsock,
    /// For the values that change nothing of security.
    KnownPersonality,
}

/// One call that is not simply allowed.
#[derive(Debug)]
pub(crate) struct Rule {
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader of the table, and of a failing test"))]
    pub name: &'static str,
    pub x86_64: Option<u32>,
    pub i386: Option<u32>,
    pub aarch64: Option<u32>,
    pub condition: Condition,
    /// Any of these allows it without condition.
    pub capabilities: &'static [&'static str],
}

const fn rule(
    name: &'static str,
    [x86_64, i386, aarch64]: [Option<u32>; 3],
    condition: Condition,
    capabilities: &'static [&'static str],
) -> Rule {
    Rule { name, x86_64, i386, aarch64, condition, capabilities }
}

use Condition::{CloneWithoutNamespaces, KnownPersonality, Refused, SocketNotVsock, Unknown};

/// The rules, by name.
#[rustfmt::skip]
pub(crate) const RULES: &[Rule] = &[
    rule("_sysctl", [Some(156), Some(149), None], Refused, &[]),
    rule("acct", [Some(163), Some(51), Some(89)], Refused, &["SYS_PACCT"]),
    rule("add_key", [Some(248), Some(286), Some(217)], Refused, &[]),
    rule("bpf", [Some(321), Some(357), Some(280)], Refused, &["SYS_ADMIN", "BPF"]),
    rule("chroot", [Some(161), Some(61), Some(51)], Refused, &["SYS_CHROOT"]),
    rule("clock_settime", [Some(227), Some(264), Some(112)], Refused, &["SYS_TIME"]),
    rule("clock_settime64", [None, Some(404), None], Refused, &["SYS_TIME"]),
    rule("clone", [Some(56), Some(120), Some(220)], CloneWithoutNamespaces, &["SYS_ADMIN"]),
    rule("clone3", [Some(435), Some(435), Some(435)], Unknown, &["SYS_ADMIN"]),
    rule("delete_module", [Some(176), Some(129), Some(106)], Refused, &["SYS_MODULE"]),
    rule("fanotify_init", [Some(300), Some(338), Some(262)], Refused, &["SYS_ADMIN"]),
    rule("finit_module", [Some(313), Some(350), Some(273)], Refused, &["SYS_MODULE"]),
    rule("fsconfig", [Some(431), Some(431), Some(431)], Refused, &["SYS_ADMIN"]),
    rule("fsmount", [Some(432), Some(432), Some(432)], Refused, &["SYS_ADMIN"]),
    rule("fsopen", [Some(430), Some(430), Some(430)], Refused, &["SYS_ADMIN"]),
    rule("fspick", [Some(433), Some(433), Some(433)], Refused, &["SYS_ADMIN"]),
    rule("get_mempolicy", [Some(239), Some(275), Some(236)], Refused, &["SYS_NICE"]),
    rule("init_module", [Some(175), Some(128), Some(105)], Refused, &["SYS_MODULE"]),
    rule("io_uring_enter", [Some(426), Some(426), Some(426)], Refused, &[]),
    rule("io_uring_register", [Some(427), Some(427), Some(427)], Refused, &[]),
    rule("io_uring_setup", [Some(425), Some(425), Some(425)], Refused, &[]),
    rule("ioperm", [Some(173), Some(101), None], Refused, &["SYS_RAWIO"]),
    rule("iopl", [Some(172), Some(110), None], Refused, &["SYS_RAWIO"]),
    rule("kcmp", [Some(312), Some(349), Some(272)], Refused, &["SYS_PTRACE"]),
    rule("kexec_file_load", [Some(320), None, Some(294)], Refused, &[]),
    rule("kexec_load", [Some(246), Some(283), Some(104)], Refused, &[]),
    rule("keyctl", [Some(250), Some(288), Some(219)], Refused, &[]),
    rule("lookup_dcookie", [Some(212), Some(253), Some(18)], Refused, &["SYS_ADMIN"]),
    rule("mbind", [Some(237), Some(274), Some(235)], Refused, &["SYS_NICE"]),
    rule("migrate_pages", [Some(256), Some(294), Some(238)], Refused, &[]),
    rule("mount", [Some(165), Some(21), Some(40)], Refused, &["SYS_ADMIN"]),
    rule("mount_setattr", [Some(442), Some(442), Some(442)], Refused, &["SYS_ADMIN"]),
    rule("move_mount", [Some(429), Some(429), Some(429)], Refused, &["SYS_ADMIN"]),
    rule("move_pages", [Some(279), Some(317), Some(239)], Refused, &[]),
    rule("nfsservctl", [Some(180), Some(169), Some(42)], Refused, &[]),
    rule("open_by_handle_at", [Some(304), Some(342), Some(265)], Refused, &["DAC_READ_SEARCH"]),
    rule("open_tree", [Some(428), Some(428), Some(428)], Refused, &["SYS_ADMIN"]),
    rule("open_tree_attr", [Some(467), Some(467), Some(467)], Refused, &["SYS_ADMIN"]),
    rule("perf_event_open", [Some(298), Some(336), Some(241)], Refused, &["SYS_ADMIN", "PERFMON"]),
    rule("personality", [Some(135), Some(136), Some(92)], KnownPersonality, &[]),
    rule("pidfd_getfd", [Some(438), Some(438), Some(438)], Refused, &["SYS_PTRACE"]),
    rule("pivot_root", [Some(155), Some(217), Some(41)], Refused, &[]),
    rule("process_madvise", [Some(440), Some(440), Some(440)], Refused, &["SYS_PTRACE"]),
    rule("quotactl", [Some(179), Some(131), Some(60)], Refused, &["SYS_ADMIN"]),
    rule("quotactl_fd", [Some(443), Some(443), Some(443)], Refused, &["SYS_ADMIN"]),
    rule("reboot", [Some(169), Some(88), Some(142)], Refused, &["SYS_BOOT"]),
    rule("request_key", [Some(249), Some(287), Some(218)], Refused, &[]),
    rule("set_mempolicy", [Some(238), Some(276), Some(237)], Refused, &["SYS_NICE"]),
    rule("set_mempolicy_home_node", [Some(450), Some(450), Some(450)], Refused, &["SYS_NICE"]),
    rule("setdomainname", [Some(171), Some(121), Some(162)], Refused, &["SYS_ADMIN"]),
    rule("sethostname", [Some(170), Some(74), Some(161)], Refused, &["SYS_ADMIN"]),
    rule("setns", [Some(308), Some(346), Some(268)], Refused, &["SYS_ADMIN"]),
    rule("settimeofday", [Some(164), Some(79), Some(170)], Refused, &["SYS_TIME"]),
    rule("socket", [Some(41), Some(359), Some(198)], SocketNotVsock, &[]),
    rule("stime", [None, Some(25), None], Refused, &["SYS_TIME"]),
    rule("swapoff", [Some(168), Some(115), Some(225)], Refused, &[]),
    rule("swapon", [Some(167), Some(87), Some(224)], Refused, &[]),
    rule("sysfs", [Some(139), Some(135), None], Refused, &[]),
    rule("syslog", [Some(103), Some(103), Some(116)], Refused, &["SYS_ADMIN", "SYSLOG"]),
    rule("umount", [None, Some(22), None], Refused, &["SYS_ADMIN"]),
    rule("umount2", [Some(166), Some(52), Some(39)], Refused, &["SYS_ADMIN"]),
    rule("unshare", [Some(272), Some(310), Some(97)], Refused, &["SYS_ADMIN"]),
    rule("uselib", [Some(134), Some(86), None], Refused, &[]),
    rule("userfaultfd", [Some(323), Some(374), Some(282)], Refused, &[]),
    rule("ustat", [Some(136), Some(62), None], Refused, &[]),
    rule("vhangup", [Some(153), Some(111), Some(58)], Refused, &["SYS_TTY_CONFIG"]),
    rule("vm86", [None, Some(166), None], Refused, &[]),
    rule("vm86old", [None, Some(113), None], Refused, &[]),
];
