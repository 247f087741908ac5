//! Proving that an archive is whole.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    assemble::Assembler,
    buffers::Buffers,
    codec::Codec,
    entry::{EntryHead, PartEntry, PartKind},
    hashes::{ContentHasher, ContentHashes},
    index::Segment,
    read_at::read_exact,
    reader::{Archive, Pages},
    scan::{self, Crc, Scan},
};
use crate::{
    cancel::Cancel,
    error::{Error, ErrorKind, Result},
    manifest::Preamble,
    part::{BlobContent, Content, EntryFacts, EntryPath, FileEntry},
    record::Sha256Digest,
};

/// How much of an archive is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum VerifyMode {
    /// Trailer, root and index, and that everything fits together; contents are not read.
    Quick,
    /// Every byte: each hash, each digest, and the manifest's figures against the parts.
    #[default]
    Full,
}

/// What [`Archive::verify`] looked at; it returns only where everything was right.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Whether every byte was read.
    pub full: bool,
    /// Number of parts.
    pub parts: u64,
    /// Bytes of the parts, uncompressed.
    pub bytes: u64,
    /// Number of records and entries whose digests were computed again; 0 in a quick run.
    pub records: u64,
}

impl Archive {
    /// Proves that the archive is whole; `progress` hears the bytes that were checked since
    /// the last call.
    ///
    /// Hashes give integrity, not authenticity: an archive whose hashes were changed along
    /// with its content passes.
    ///
    /// # Errors
    /// The first damage found, naming the part.
    pub fn verify(
        &self,
        mode: VerifyMode,
        cancel: &Cancel,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<VerifyReport> {
        let facts = &self.manifest().index;
        let mut report = VerifyReport {
            full: mode == VerifyMode::Full,
            parts: facts.parts,
            bytes: facts.bytes,
            records: 0,
        };
        self.check_head()?;
        if mode == VerifyMode::Quick {
            let mut pages = Pages::new(self.clone());
            while pages.next()?.is_some() {
                cancel.check()?;
            }
            return Ok(report);
        }
        let mut found = Found::default();
        let mut scan = self.scan(|_| true, cancel)?;
        while let Some(part) = scan.next_part()? {
            found.part(self, &mut scan, &part, progress)?;
        }
        self.check_crc(std::mem::take(&mut scan.crcs))?;
        report.records = found
            .stores
            .values()
            .flat_map(|s| s.content.collections.values())
            .map(|t| t.records)
            .sum();
        found.compare(self)?;
        Ok(report)
    }

    // Before the first segment there is only what the codec begins with.
    fn check_head(&self) -> Result<()> {
        let head = self.inner.format.head();
        if read_exact(&*self.inner.source, 0, head.len() as u64)? != head {
            return Err(Error::new(ErrorKind::Corrupt, "the file's first bytes are damaged"));
        }
        Ok(())
    }

    // The one CRC-32 of the gzip member, which stock tools will check.
    fn check_crc(&self, mut crcs: Vec<(u64, Crc)>) -> Result<()> {
        if self.manifest().codec != Codec::Gzip {
            return Ok(());
        }
        let trailer = &self.inner.trailer;
        let root = Segment {
            offset: trailer.root_offset,
            size: trailer.root_size,
            tar_offset: trailer.tar_size - trailer.root_tar_size,
            tar_size: trailer.root_tar_size,
            sha256: trailer.root_sha256,
        };
        let own = self.manifest().index.pages.iter().map(Segment::from).chain([root]);
        for segment in own {
            crcs.push((
                segment.tar_offset,
                scan::load(&self.inner, &segment, &Buffers::default())?.1,
            ));
        }
        crcs.sort_by_key(|(offset, _)| *offset);
        let mut whole = Crc::new();
        crcs.iter().for_each(|(_, crc)| whole.combine(crc));
        if whole.finalize() != trailer.crc32 {
            return Err(Error::new(ErrorKind::Corrupt, "the archive does not match its CRC-32"));
        }
        Ok(())
    }
}

/// What the parts add up to, to be compared with the manifest.
#[derive(Default)]
struct Found {
    stores: BTreeMap<String, StoreFound>,
    config: Vec<String>,
    checksums: Sha256,
    batch: Assembler,
}

#[derive(Default)]
struct StoreFound {
    content: Content,
    parts: u64,
    bytes: u64,
}

impl Found {
    fn part(
        &mut self,
        archive: &Archive,
        scan: &mut Scan,
        part: &PartEntry,
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<()> {
        if !matches!(part.kind, PartKind::Vector { .. }) {
            self.end_batch()?;
        }
        let whole = matches!(
            part.kind,
            PartKind::Records { .. } | PartKind::Vector { .. } | PartKind::Preamble {}
        );
        let mut hasher = ContentHasher::new(part.kind.masked());
        let content = if whole { scan.whole()? } else { Bytes::new() };
        hasher.update(&content);
        progress(content.len() as u64);
        while let Some(chunk) = scan.chunk()? {
            scan.hash(&mut hasher, &chunk);
            progress(chunk.len() as u64);
        }
        let hashes = hasher.finish();
        if let Some(store) = part.kind.store() {
            let store = self.stores.entry(store.into()).or_default();
            store.parts += 1;
            store.bytes += part.size;
        }
        self.account(archive, part, content, &hashes)
    }

    fn account(
        &mut self,
        archive: &Archive,
        part: &PartEntry,
        content: Bytes,
        hashes: &ContentHashes,
    ) -> Result<()> {
        let corrupt = |what: &str| Err(Error::new(ErrorKind::Corrupt, what).on(&part.path));
        match &part.kind {
            PartKind::Preamble {} => {
                let preamble = Preamble::from_json(&content)?;
                let manifest = archive.manifest();
                if preamble.id != manifest.id || preamble.created != manifest.created {
                    return corrupt("the first part and the root disagree");
                }
            }
            PartKind::Schema { store, collection } => {
                let store = self.stores.entry(store.clone()).or_default();
                store.content.collections.entry(collection.clone()).or_default();
            }
            PartKind::Records { .. } | PartKind::Vector { .. } => self.batch.take(part, content)?,
            PartKind::Blob { store, name, masked, .. } => {
                let (len, digest) = (part.size, hashes.masked);
                let blob = BlobContent { len, digest, masked: masked.clone() };
                let store = self.stores.entry(store.clone()).or_default();
                store.content.blobs.insert(name.clone(), blob);
            }
            PartKind::Entry { store, root, name, mode, modified, entry, .. } => {
                let facts = match entry {
                    EntryHead::File => EntryFacts::File { len: part.size, sha256: &hashes.plain },
                    EntryHead::Directory => EntryFacts::Directory,
                    EntryHead::Symlink(target) => EntryFacts::Symlink { target },
                };
                let line = FileEntry::line(&EntryPath::new(name)?, *mode, *modified, facts);
                let store = self.stores.entry(store.clone()).or_default();
                store.content.collections.entry(root.clone()).or_default().add_line(&line);
            }
            PartKind::Config { name } => self.config.push(name.clone()),
            PartKind::Checksums {} => {
                let expected = Sha256Digest::finish(std::mem::take(&mut self.checksums));
                if expected != hashes.plain {
                    return corrupt("the list of checksums and the parts disagree");
                }
            }
        }
        let hashed = !matches!(
            &part.kind,
            PartKind::Entry { entry: EntryHead::Directory | EntryHead::Symlink(_), .. }
        );
        if hashed {
            self.checksums.update(format!("{}  {}\n", hashes.plain, part.path));
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<()> {
        let Some((store, batch)) = self.batch.finish()? else { return Ok(()) };
        let store = self.stores.entry(store).or_default();
        let tally = store.content.collections.entry(batch.collection().to_owned()).or_default();
        tally.add_batch(&batch);
        Ok(())
    }

    fn compare(mut self, archive: &Archive) -> Result<()> {
        self.end_batch()?;
        let manifest = archive.manifest();
        let disagree = |what: String| {
            Err(Error::new(ErrorKind::Mismatch, "the manifest and the parts disagree").on(what))
        };
        if self.config != manifest.config {
            return disagree("configurations".into());
        }
        for (name, store) in &manifest.stores {
            let found = self.stores.remove(name).unwrap_or_default();
            let stated = store.content();
            for (collection, tally) in &stated.collections {
                let found = found.content.collections.get(collection).cloned().unwrap_or_default();
                if found != *tally {
                    return disagree(format!(
                        "{name}/{collection}: stated {} records with digest {}, found {} with {}",
                        tally.records, tally.digest, found.records, found.digest
                    ));
                }
            }
            if found.content.blobs != stated.blobs
                || found.content.collections.keys().any(|c| !stated.collections.contains_key(c))
                || (found.parts, found.bytes) != (store.parts, store.bytes)
            {
                return disagree(format!("store {name}"));
            }
        }
        match self.stores.keys().next() {
            None => Ok(()),
            Some(name) => disagree(format!("store {name}, which the manifest does not list")),
        }
    }
}
