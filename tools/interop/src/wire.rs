//! HTTP/1.1 messages as bytes, for what no client shows: headers counted, bodies relayed unchanged.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(20);

/// One request or answer, read to its end.
pub struct Message {
    /// The request line or the status line.
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// All of it, as it came.
    pub raw: Vec<u8>,
}

impl Message {
    /// The value of every header of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn status(&self) -> u16 {
        let code = self.start.split(' ').nth(1);
        code.and_then(|c| c.parse().ok()).unwrap_or(0)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.all(name).iter().any(|v| v.eq_ignore_ascii_case(value))
    }
}

/// Reads the next request; `None` if the peer closed instead of sending one.
pub async fn read_request(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Message>> {
    let Some(mut message) = read_head(from).await? else {
        return Ok(None);
    };
    read_sized_body(from, &mut message).await?;
    Ok(Some(message))
}

/// Reads the next answer.
pub async fn read_answer(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Message> {
    let mut message = read_head(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if !read_sized_body(from, &mut message).await? {
        from.read_to_end(&mut message.body).await?;
        message.raw.extend(&message.body);
    }
    Ok(message)
}

/// Sends `request` to `authority` on a connection of its own and reads one answer. It reads while it
/// writes: an answer that comes before the request has been sent is seen.
pub async fn exchange(authority: &str, request: &[u8]) -> io::Result<Message> {
    let talk = async {
        let (read, mut write) = TcpStream::connect(authority).await?.into_split();
        let mut read = BufReader::new(read);
        let mut answer = std::pin::pin!(read_answer(&mut read));
        tokio::select! {
            early = &mut answer => early,
            _ = write.write_all(request) => answer.await,
        }
    };
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    tokio::time::timeout(DEADLINE, talk).await.map_err(late)?
}

/// Splits `http://host:port/path` into `host:port` and `/path`.
pub fn split_url(url: &str) -> Result<(&str, &str), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("{url} is not an http:// URL"))?;
    Ok(rest.split_at(rest.find('/').unwrap_or(rest.len())))
}

async fn read_head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Message>> {
    let mut message = Message {
        start: String::new(),
        headers: Vec::new(),
        body: Vec::new(),
        raw: Vec::new(),
    };
    message.start = match read_line(from, &mut message.raw).await? {
        line if line.is_empty() && message.raw.is_empty() => return Ok(None),
        line => line,
    };
    loop {
        let line = read_line(from, &mut message.raw).await?;
        match line.split_once(':') {
            Some((name, value)) => {
                // Only the one space that every sender puts there: clients compare the rest exactly.
                let value = value.strip_prefix(' ').unwrap_or(value);
                message.headers.push((name.to_string(), value.to_string()));
            }
            None => return Ok(Some(message)),
        }
    }
}

/// Reads a body whose end the headers announce; false if they do not.
async fn read_sized_body(
    from: &mut (impl AsyncBufRead + Unpin),
    message: &mut Message,
) -> io::Result<bool> {
    if message.has("transfer-encoding", "chunked") {
        loop {
            let size = read_line(from, &mut message.raw).await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(""), 16)
                .map_err(|_| io::ErrorKind::InvalidData)?;
            read_body(from, message, size).await?;
            read_line(from, &mut message.raw).await?;
            if size == 0 {
                return Ok(true);
            }
        }
    }
    let length = message.all("content-length").first().map(|l| l.parse());
    match length {
        Some(Ok(length)) => read_body(from, message, length).await.map(|_| true),
        Some(Err(_)) => Err(io::ErrorKind::InvalidData.into()),
        None => Ok(false),
    }
}

async fn read_body(
    from: &mut (impl AsyncBufRead + Unpin),
    message: &mut Message,
    size: usize,
) -> io::Result<()> {
    let start = message.body.len();
    message.body.resize(start + size, 0);
    from.read_exact(&mut message.body[start..]).await?;
    message.raw.extend(&message.body[start..]);
    Ok(())
}

async fn read_line(
    from: &mut (impl AsyncBufRead + Unpin),
    raw: &mut Vec<u8>,
) -> io::Result<String> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    raw.extend(&line);
    let line = String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_string())
}
