//! How a session begins (sections 13.17 to 13.24): what each side chose, and proofs that both know
//! the password. The password itself is not here: who has it makes the HMACs under it.

use super::crypt::{Keys, Suite, same};

/// Payload types.
pub(crate) const OPEN: u8 = 0x10;
pub(crate) const OPENED: u8 = 0x11;
pub(crate) const FIRST: u8 = 0x12;
pub(crate) const SECOND: u8 = 0x13;
pub(crate) const THIRD: u8 = 0x14;
pub(crate) const FOURTH: u8 = 0x15;

/// In a role: the user is looked up by name alone, whatever its privilege.
const BY_NAME: u8 = 0x10;

/// Longest name of a user.
pub(crate) const USER_BYTES: usize = 16;

/// What the console chose.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) suite: Suite,
    pub(crate) session: u32,
    pub(crate) random: [u8; 16],
    /// The most that the session is to be allowed: 3 operator, 4 administrator.
    pub(crate) privilege: u8,
    /// At most [`USER_BYTES`].
    pub(crate) user: Vec<u8>,
}

/// What the controller chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Controller {
    pub(crate) session: u32,
    pub(crate) random: [u8; 16],
    pub(crate) guid: [u8; 16],
}

/// An answer in a handshake: what was asked for, or a status (table 13-15) that says why not.
pub(crate) type Said<T> = Result<T, u8>;

impl Console {
    pub(crate) fn open(&self, tag: u8) -> Vec<u8> {
        let mut payload = vec![tag, self.privilege, 0, 0];
        payload.extend_from_slice(&self.session.to_le_bytes());
        for (sort, algorithm) in (0..).zip(self.suite.algorithms()) {
            payload.extend_from_slice(&[sort, 0, 0, 8, algorithm, 0, 0, 0]);
        }
        payload
    }

    /// The controller's number of the session, if it takes the algorithms that were offered.
    pub(crate) fn opened(&self, tag: u8, payload: &[u8]) -> Option<Said<u32>> {
        let rest = match self.status(tag, payload)? {
            Ok(rest) => rest,
            Err(status) => return Some(Err(status)),
        };
        let (session, algorithms) = rest.split_at_checked(4)?;
        let chosen = (0..3).map(|at| algorithms.get(at * 8 + 4).copied());
        if !chosen.eq(self.suite.algorithms().map(Some)) {
            return None;
        }
        let session = u32::from_le_bytes(session.try_into().ok()?);
        (session != 0).then_some(Ok(session))
    }

    pub(crate) fn first(&self, tag: u8, controller: u32) -> Vec<u8> {
        let mut payload = vec![tag, 0, 0, 0];
        payload.extend_from_slice(&controller.to_le_bytes());
        payload.extend_from_slice(&self.random);
        payload.extend_from_slice(&[self.role(), 0, 0]);
        payload.extend_from_slice(&self.name());
        payload
    }

    /// What the controller chose, and its proof: the HMAC of [`Self::controller_proof`].
    pub(crate) fn second(
        &self,
        tag: u8,
        session: u32,
        payload: &[u8],
    ) -> Option<Said<(Controller, Vec<u8>)>> {
        let rest = match self.status(tag, payload)? {
            Ok(rest) => rest,
            Err(status) => return Some(Err(status)),
        };
        let (random, rest) = rest.split_first_chunk()?;
        let (guid, proof) = rest.split_first_chunk()?;
        let controller = Controller {
            session,
            random: *random,
            guid: *guid,
        };
        (proof.len() == self.suite.mac_bytes()).then(|| Ok((controller, proof.to_vec())))
    }

    /// What the controller's proof covers.
    pub(crate) fn controller_proof(&self, controller: &Controller) -> Vec<u8> {
        let mut data = self.session.to_le_bytes().to_vec();
        data.extend_from_slice(&controller.session.to_le_bytes());
        data.extend_from_slice(&self.random);
        data.extend_from_slice(&controller.random);
        data.extend_from_slice(&controller.guid);
        data.push(self.role());
        data.extend_from_slice(&self.name());
        data
    }

    /// What the console's own proof covers.
    pub(crate) fn console_proof(&self, controller: &Controller) -> Vec<u8> {
        let mut data = controller.random.to_vec();
        data.extend_from_slice(&self.session.to_le_bytes());
        data.push(self.role());
        data.extend_from_slice(&self.name());
        data
    }

    /// What the session integrity key is the HMAC of.
    pub(crate) fn session_key(&self, controller: &Controller) -> Vec<u8> {
        let mut data = self.random.to_vec();
        data.extend_from_slice(&controller.random);
        data.push(self.role());
        data.extend_from_slice(&self.name());
        data
    }

    pub(crate) fn third(tag: u8, controller: &Controller, proof: &[u8]) -> Vec<u8> {
        let mut payload = vec![tag, 0, 0, 0];
        payload.extend_from_slice(&controller.session.to_le_bytes());
        payload.extend_from_slice(proof);
        payload
    }

    /// Whether the controller has the same key: the last answer's proof.
    pub(crate) fn fourth(
        &self,
        tag: u8,
        controller: &Controller,
        keys: &Keys,
        payload: &[u8],
    ) -> Option<Said<bool>> {
        let proof = match self.status(tag, payload)? {
            Ok(proof) => proof,
            Err(status) => return Some(Err(status)),
        };
        Some(Ok(same(&self.last_proof(controller, keys), proof)))
    }

    pub(crate) fn last_proof(&self, controller: &Controller, keys: &Keys) -> Vec<u8> {
        let mut data = self.random.to_vec();
        data.extend_from_slice(&controller.session.to_le_bytes());
        data.extend_from_slice(&controller.guid);
        let mut proof = self.suite.mac(&keys.session, &data);
        proof.truncate(self.suite.code_bytes());
        proof
    }

    /// What follows in an answer to this console, or its status. Refusals are short, and some
    /// controllers leave out for whom they are.
    fn status<'a>(&self, tag: u8, payload: &'a [u8]) -> Option<Said<&'a [u8]>> {
        let (&[same, status], rest) = payload.split_first_chunk()?;
        if same != tag {
            return None;
        }
        if status != 0 {
            return Some(Err(status));
        }
        let (to, rest) = rest.get(2..)?.split_at_checked(4)?;
        (to == self.session.to_le_bytes()).then_some(Ok(rest))
    }

    fn role(&self) -> u8 {
        BY_NAME | self.privilege
    }

    fn name(&self) -> Vec<u8> {
        let length = u8::try_from(self.user.len()).unwrap_or(0);
        [&[length], &self.user[..]].concat()
    }
}
