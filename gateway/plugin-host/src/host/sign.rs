//! `loopback:base/sign`.

use model::names::Name;
use wasmtime::component::Resource;

use super::{Answer, invalid};
use crate::contract::base::loopback::base::sign::{AwsRequest, Hash, Host};
use crate::ports::{GuestError, Secret};
use crate::sign;
use crate::store::CallState;

impl Host for CallState {
    async fn hmac(
        &mut self,
        secret: Resource<Secret>,
        hash: Hash,
        data: Vec<u8>,
    ) -> Answer<Vec<u8>> {
        self.enter()?;
        let secret = self.table.get(&secret)?.clone();
        let hash = match hash {
            Hash::Sha1 => sign::Hash::Sha1,
            Hash::Sha256 => sign::Hash::Sha256,
            Hash::Sha384 => sign::Hash::Sha384,
            Hash::Sha512 => sign::Hash::Sha512,
        };
        let answer = self
            .secret_use(&secret)
            .map(|()| sign::hmac(hash, secret.value.expose(), &data));
        self.tell(answer)
    }

    async fn aws_sigv4(
        &mut self,
        key_id: Resource<Secret>,
        key: Resource<Secret>,
        session_token: Option<Resource<Secret>>,
        request: AwsRequest,
    ) -> Answer<Vec<(String, String)>> {
        self.enter()?;
        let id = self.table.get(&key_id)?.clone();
        let key = self.table.get(&key)?.clone();
        let token = match &session_token {
            Some(token) => Some(self.table.get(token)?.clone()),
            None => None,
        };
        let answer = self.aws(&id, &key, token.as_ref(), &request);
        self.tell(answer)
    }
}

impl CallState {
    fn aws(
        &mut self,
        id: &Secret,
        key: &Secret,
        token: Option<&Secret>,
        request: &AwsRequest,
    ) -> Result<Vec<(String, String)>, GuestError> {
        self.secret_use(key)?;
        let keys = sign::AwsKeys {
            id: header_text(id)?,
            key: key.value.expose(),
            session_token: token.map(header_text).transpose()?,
        };
        let request = sign::AwsRequest {
            region: &request.region,
            service: &request.service,
            method: &request.method,
            url: &request.url,
            headers: &request.headers,
            body_sha256: &request.body_sha256,
        };
        let now = self.surroundings()?.clock.now_ms();
        sign::aws_sigv4(keys, &request, &sign::aws_time(now))
    }
}

fn header_text(secret: &Secret) -> Result<&str, GuestError> {
    str::from_utf8(secret.value.expose())
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| not_text(&secret.name))
}

fn not_text(name: &Name) -> GuestError {
    invalid(
        "sign.secret_not_text",
        format!("the secret `{name}` cannot stand in a header"),
    )
}
