//! Devices of other processes and machines, through burn-remote. A worker serves the devices of its machine over WebSocket, and
//! training elsewhere computes on them.
//!
//! What travels is not encrypted, and a token only keeps strangers out: use it within a trusted network.

use std::{
    env,
    net::TcpListener,
    sync::{Mutex, PoisonError},
};

use burn::{
    remote::RemoteHost,
    server::{RemoteServer, TokenAuthorizer, WebSocketTransport},
    tensor::Device,
};

use super::REMOTE;
use crate::{Error, Result};

/// The environment variable with the token that a worker asks for, if it asks for one.
pub const TOKEN: &str = "DEBERTA_BURN_REMOTE_TOKEN";

/// The devices found so far, with their names: burn's devices keep their addresses to themselves.
static FOUND: Mutex<Vec<(Device, String)>> = Mutex::new(Vec::new());

/// The token of this process, unless it is empty.
fn token() -> Option<String> {
    env::var(TOKEN).ok().filter(|token| !token.is_empty())
}

/// All devices of the worker at this address, `HOST:PORT`.
pub(super) fn devices(address: &str) -> Result<Vec<Device>> {
    let error = |problem: String| Error::Device { device: format!("{REMOTE}{address}"), problem };
    if !address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(error("expected the host and the port of a worker, such as remote:10.0.0.2:3000".to_owned()));
    }
    let mut host = RemoteHost::websocket(&format!("ws://{address}"));
    if let Some(token) = token() {
        host = host.with_credential(token);
    }
    let refused = |problem| error(format!("{problem}; is the example `worker` running there, with the same {TOKEN}?"));
    let devices = host.devices().map_err(refused)?.into_vec();
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    found.extend(devices.iter().map(|device| (device.clone(), format!("{REMOTE}{address}"))));
    Ok(devices)
}

/// The name of a device of another process; none for other devices.
pub(super) fn name(of: &Device) -> Option<String> {
    let (of, found) = (of.clone().inner(), FOUND.lock().unwrap_or_else(PoisonError::into_inner));
    let name = found.iter().find(|(device, _)| *device == of).map(|(_, name)| name.clone());
    is_remote(&of).then(|| name.unwrap_or_else(|| "remote".to_owned()))
}

/// Serves devices of this machine to training elsewhere, until the process is told to stop. All have to be of one backend. If the
/// environment variable [`TOKEN`] is set, clients need the same token.
///
/// # Errors
/// [`Error::Device`] if there is no device or the network fails.
pub fn serve(devices: Vec<Device>, listener: TcpListener) -> Result<()> {
    let error = |problem: String| Error::Device { device: "remote".to_owned(), problem };
    let mut server = RemoteServer::new(devices);
    if let Some(token) = token() {
        server = server.with_authorizer(TokenAuthorizer::new(token).map_err(|problem| error(problem.to_string()))?);
    }
    server.serve(WebSocketTransport::from_listener(listener)).map_err(|problem| error(problem.to_string()))
}

/// Whether this is a device of another process.
pub(super) fn is_remote(of: &Device) -> bool {
    matches!(of.clone().inner().as_dispatch(), burn::backend::DispatchDevice::Remote(_))
}
