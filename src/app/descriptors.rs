//! How many files and sockets the process may have open.

use std::io;

/// Besides clients and what serves them: the store, the catalog, mongods' pipes, the admin API.
const OTHERS: u64 = 512;

/// Raises the limit on open files to what this user may have, and says it where that is too few
/// for as many clients as may come: each holds a descriptor, and while it works perhaps another.
pub(super) fn raise(connections: usize) -> Option<String> {
    let needed = connections as u64 * 2 + OTHERS;
    match to_hard_limit() {
        Ok(limit) => too_few(limit, needed),
        Err(error) => Some(format!("the limit on open files is not known: {error}")),
    }
}

fn too_few(limit: u64, needed: u64) -> Option<String> {
    (limit < needed).then(|| {
        format!(
            "this process may open {limit} files, {needed} are needed for as many connections as \
             may come: raise the hard limit (ulimit -Hn, LimitNOFILE), or lower --max-connections"
        )
    })
}

fn to_hard_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole rlimit, which the kernel fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a whole rlimit, which the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_is_taken_and_too_few_are_said_in_one_line() {
        let limit = to_hard_limit().unwrap();
        assert_eq!(raise(1), None, "{limit}");
        let text = raise(usize::try_from(limit).unwrap_or(usize::MAX / 4)).unwrap();
        assert!(text.contains(&limit.to_string()) && !text.contains('\n'), "{text}");
    }
}
