//! Several hosts in one URL: `postgresql://user@first:5432,second/database`, as libpq has it. sqlx knows one host a URL.

/// A URL for each host, in their order.
pub(crate) fn each(url: &str) -> Vec<String> {
    let Some((before, hosts, after)) = split(url) else { return vec![url.to_owned()] };
    hosts.split(',').map(|host| format!("{before}{host}{after}")).collect()
}

/// The URL with these hosts in place of its own. A host that begins with `/` is the folder of a unix socket.
#[must_use]
pub fn with_hosts(url: &str, hosts: &str) -> String {
    let Some((before, _, after)) = split(url) else { return url.to_owned() };
    let hosts: Vec<String> = hosts.split(',').map(|host| encoded(host.trim())).collect();
    let (path, query) = after.split_once('?').unwrap_or((after, ""));
    // These would be taken for the host of each.
    let is_host = |pair: &&str| ["host", "hostaddr", "port"].contains(&pair.split('=').next().unwrap_or_default());
    let query: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !is_host(pair)).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{before}{}{path}{mark}{}", hosts.join(","), query.join("&"))
}

/// What is before the hosts, the hosts, and what is after them.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let begin = url.find("://")? + "://".len();
    let end = url[begin..].find(['/', '?']).map_or(url.len(), |end| begin + end);
    let begin = url[begin..end].rfind('@').map_or(begin, |at| begin + at + 1);
    Some((&url[..begin], &url[begin..end], &url[end..]))
}

/// A folder as the host of a URL; any other host as it is.
fn encoded(host: &str) -> String {
    if !host.starts_with('/') {
        return host.to_owned();
    }
    let (folder, port) = match host.rsplit_once(':') {
        Some((folder, port)) if port.parse::<u16>().is_ok() => (folder, Some(port)),
        _ => (host, None),
    };
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let folder: String = folder.bytes().map(byte).collect();
    port.map_or(folder.clone(), |port| format!("{folder}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_a_url() {
        for (url, urls) in [
            (
                "postgresql://u:p@a:1,b,[::1]:3/db?x=1",
                &["postgresql://u:p@a:1/db?x=1", "postgresql://u:p@b/db?x=1", "postgresql://u:p@[::1]:3/db?x=1"][..],
            ),
            ("postgres://a", &["postgres://a"]),
            ("postgres:///db?host=/tmp", &["postgres:///db?host=/tmp"]),
            ("no url", &["no url"]),
        ] {
            assert_eq!(each(url), urls);
        }
    }

    #[test]
    fn hosts_take_the_place_of_those_of_the_url() {
        for (url, hosts, replaced) in [
            ("postgresql://u@c:1/db?sslmode=disable", "a:1, b", "postgresql://u@a:1,b/db?sslmode=disable"),
            (
                "postgresql://u@c/db?host=/tmp&port=1&a=b&hostaddr=1",
                "/x y,/z:2",
                "postgresql://u@%2Fx%20y,%2Fz:2/db?a=b",
            ),
            ("postgresql://c?port=1", "a", "postgresql://a"),
        ] {
            assert_eq!(with_hosts(url, hosts), replaced);
        }
        let socket = each(&with_hosts("postgresql://u@c:1/db", "/tmp/a,/tmp/b:2")).pop().unwrap_or_default();
        let options: sqlx::postgres::PgConnectOptions = socket.parse().expect("a URL");
        assert_eq!((options.get_socket().map(|s| s.as_path()), options.get_port()), (Some("/tmp/b".as_ref()), 2));
    }
}
