//! What the machine's own kernel may lack, in Debian's: see [`lab::guest`].

mod kernel;
mod vrf;
