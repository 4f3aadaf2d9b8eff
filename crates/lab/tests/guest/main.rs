//! What the machine's own kernel may lack, in Debian's: see [`lab::guest`].

mod ipvs;
mod kernel;
mod lan;
mod vrf;
