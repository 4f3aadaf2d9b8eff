//! What an ELF file says of itself: enough to keep a program out of the image that would not start
//! in it.

/// What kept it out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// No ELF file of 64 bits, little-endian, or a broken one.
    NoProgram,
    /// For another processor: its number.
    Machine(u16),
    /// It asks for a dynamic loader, and an image from scratch has none.
    Dynamic,
}

/// Type of the program header that names the loader.
const PT_INTERP: u32 = 3;

/// Whether a program is static and for the processor with this number (`e_machine`).
pub(super) fn check(file: &[u8], machine: u16) -> Result<(), Unfit> {
    const CLASS_64_LITTLE: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
    if !file.starts_with(&CLASS_64_LITTLE) {
        return Err(Unfit::NoProgram);
    }
    let found = u16_at(file, 18).ok_or(Unfit::NoProgram)?;
    if found != machine {
        return Err(Unfit::Machine(found));
    }
    let headers = || {
        let start = usize::try_from(u64_at(file, 32)?).ok()?;
        let (size, count) = (u16_at(file, 54)?, u16_at(file, 56)?);
        Some((start, usize::from(size), usize::from(count)))
    };
    let (start, size, count) = headers().ok_or(Unfit::NoProgram)?;
    for number in 0..count {
        let at = start.checked_add(number * size).ok_or(Unfit::NoProgram)?;
        let kind = u32_at(file, at).ok_or(Unfit::NoProgram)?;
        if kind == PT_INTERP {
            return Err(Unfit::Dynamic);
        }
    }
    Ok(())
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An ELF file with nothing but program headers of these types.
    pub(in crate::image) fn program(machine: u16, headers: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32] = 64;
        file[54] = 56;
        file[56] = headers.len() as u8;
        for kind in headers {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn static_programs_of_the_processor_are_fit() {
        assert_eq!(check(&program(62, &[6, 1, 2]), 62), Ok(()));
        assert_eq!(check(&program(62, &[6, 3, 1]), 62), Err(Unfit::Dynamic));
        assert_eq!(check(&program(183, &[1]), 62), Err(Unfit::Machine(183)));
        let cut = &program(62, &[1, 1])[..100];
        for file in [b"#!/bin/sh".as_slice(), b"", cut] {
            assert_eq!(check(file, 62), Err(Unfit::NoProgram));
        }
    }

    #[test]
    fn the_test_s_own_program_is_dynamic() {
        let own = std::env::current_exe()
            .and_then(std::fs::read)
            .expect("this program");
        if cfg!(all(
            target_arch = "x86_64",
            not(target_feature = "crt-static")
        )) {
            assert_eq!(check(&own, 62), Err(Unfit::Dynamic));
        }
    }
}
