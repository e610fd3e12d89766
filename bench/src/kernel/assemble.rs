//! Programs written by hand: instructions, put into the object file that the loader takes.

use anyhow::{Context as _, Result};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

/// One instruction: operation, registers (source in the upper half), offset, immediate.
pub type Instruction = (u8, u8, i16, i32);

/// `r0 = 1`: let it pass; to `sock_ops` it says nothing.
pub const PASS: Instruction = (0xb7, 0, 0, 1);
/// Ends the program.
pub const EXIT: Instruction = (0x95, 0, 0, 0);

/// Assembles programs, each by its section, its name and its code.
pub fn object_file(programs: &[(&str, &str, &[Instruction])]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    for (section, name, code) in programs {
        let section = object.add_section(Vec::new(), (*section).into(), SectionKind::Text);
        let bytes: Vec<_> = code.iter().flat_map(assemble).collect();
        object.append_section_data(section, &bytes, 8);
        object.add_symbol(Symbol {
            name: (*name).into(),
            value: 0,
            size: bytes.len() as u64,
            kind: SymbolKind::Text,
            scope: SymbolScope::Linkage,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    let license = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(license, b"GPL\0", 1);
    object.write().context("writing an object of programs")
}

fn assemble(&(operation, registers, offset, immediate): &Instruction) -> [u8; 8] {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    [operation, registers, o0, o1, i0, i1, i2, i3]
}
