//! The reading half of an adapter with a fault.

use std::{collections::VecDeque, sync::Mutex};

use backup_core::{
    Cancel, Error, ErrorKind, Part, Partition, PinRequest, Pinned, Result, Source, SourceSession,
    Summary, async_trait, record::RecordBatch,
};

use super::{Fault as F, Store};

struct Session {
    store: Store,
    inner: Box<dyn SourceSession>,
    number: usize,
    // Everything, once the first part was asked for: some faults look ahead.
    parts: Mutex<Option<VecDeque<Part>>>,
}

#[async_trait]
impl Source for Store {
    async fn pin(&self, request: &PinRequest) -> Result<Pinned> {
        let mut request = request.clone();
        match self.fault {
            F::ReadsOnWhenCancelled => request.cancel = Cancel::new(),
            F::ReadsEverything => request.collections.clear(),
            F::LeavesSnapshot => self.leave("snapshot"),
            F::StaysLocked if self.own(|own| std::mem::replace(&mut own.locked, true)) => {
                return Err(Error::new(ErrorKind::Busy, "locked by another session"));
            }
            _ => {}
        }
        let (Pinned::Pinned { session: inner, .. } | Pinned::Live { session: inner, .. }) =
            self.place.store.pin(&request).await?;
        let number = self.own(|own| {
            own.sessions += 1;
            own.sessions
        });
        let session =
            Box::new(Session { store: self.clone(), inner, number, parts: Mutex::default() });
        Ok(Pinned::Pinned { session, mark: None })
    }
}

#[async_trait]
impl SourceSession for Session {
    async fn partitions(&self) -> Result<Vec<Partition>> {
        self.inner.partitions().await
    }

    async fn next(&self, partition: &Partition) -> Result<Option<Part>> {
        // What looks ahead would see neither a cancellation nor a change in between.
        if matches!(self.store.fault, F::Nothing | F::SeesLaterChanges | F::ReadsOnWhenCancelled) {
            return self.inner.next(partition).await;
        }
        if self.parts.lock().unwrap().is_none() {
            let mut parts = VecDeque::new();
            while let Some(part) = self.inner.next(partition).await? {
                parts.push_back(part);
            }
            *self.parts.lock().unwrap() = Some(self.spoilt(parts)?);
        }
        let mut parts = self.parts.lock().unwrap();
        Ok(parts.as_mut().and_then(VecDeque::pop_front))
    }

    async fn close(self: Box<Self>) -> Result<Summary> {
        self.store.own(|own| own.locked = false);
        self.inner.close().await
    }
}

impl Session {
    fn spoilt(&self, parts: VecDeque<Part>) -> Result<VecDeque<Part>> {
        let mut spoilt: VecDeque<Part> = VecDeque::new();
        // Records of the collection under way, left out or doubled.
        let (mut given, mut difference) = (0, 0_i64);
        for part in parts {
            match (self.store.fault, part) {
                (F::ChangesItsMind, Part::Schema(mut schema)) => {
                    schema.document = serde_json::json!({"session": self.number});
                    spoilt.push_back(Part::Schema(schema));
                }
                (F::QuotesBadly, Part::Schema(schema)) if schema.collection.contains('\'') => {
                    return Err(Error::new(ErrorKind::Io, "near \"'\": syntax error"));
                }
                (fault, Part::Records(batch)) => {
                    let lines: Vec<String> =
                        batch.iter().map(|record| record.line().to_owned()).collect();
                    let mut kept: Vec<usize> = (0..lines.len()).collect();
                    match fault {
                        // Of a batch: enough, and the last one has one too.
                        F::DropsLastRecord => drop(kept.pop()),
                        F::GivesRecordTwice => kept.push(0),
                        F::LosesElements => kept.retain(|i| !lines[*i].contains("\"element\"")),
                        F::StopsAtFiveThousand => kept.retain(|_| {
                            given += 1;
                            given <= 5000
                        }),
                        _ => {}
                    }
                    difference += kept.len() as i64 - lines.len() as i64;
                    let text: String =
                        kept.iter().map(|i| format!("{}\n", self.line(&lines[*i]))).collect();
                    let columns = if fault == F::LosesVectors || kept.len() != lines.len() {
                        Vec::new()
                    } else {
                        batch.columns().to_vec()
                    };
                    let batch = RecordBatch::from_lines(batch.collection(), text.into())?
                        .with_columns(columns)?;
                    match spoilt.back_mut() {
                        Some(Part::Records(last)) if fault == F::MakesOneBatch => {
                            let text = [&last.text()[..], &batch.text()[..]].concat();
                            *last = RecordBatch::from_lines(batch.collection(), text.into())?;
                        }
                        _ if batch.is_empty() => {}
                        _ => spoilt.push_back(Part::Records(batch)),
                    }
                }
                (F::SkipsNamesThatAreNotText, Part::Entry(entry))
                    if std::str::from_utf8(entry.path.as_bytes()).is_err() =>
                {
                    difference -= 1;
                }
                (F::GivesEntriesBackwards, part @ Part::Entry(_))
                    if matches!(spoilt.back(), Some(Part::Entry(_))) =>
                {
                    spoilt.insert(spoilt.len() - 1, part);
                }
                (fault, Part::End(mut end)) => {
                    end.count = end.count.map(|count| count.saturating_add_signed(difference));
                    (given, difference) = (0, 0);
                    match fault {
                        F::CountsWrong => end.count = end.count.map(|count| count + 1),
                        F::SkipsEmptyCollections if end.count == Some(0) => {
                            spoilt.pop_back();
                            continue;
                        }
                        F::GivesSchemaLast => {
                            let first = spoilt.iter().position(|part| {
                                matches!(part, Part::Schema(s) if s.collection == end.collection)
                            });
                            let schema = first.and_then(|place| spoilt.remove(place));
                            spoilt.extend(schema);
                        }
                        _ => {}
                    }
                    spoilt.push_back(Part::End(end));
                }
                (_, part) => spoilt.push_back(part),
            }
        }
        Ok(spoilt)
    }

    fn line(&self, line: &str) -> String {
        const TAGGED: &str = r#"{"$type":"Integer","_value":"9007199254740993"}"#;
        match self.store.fault {
            F::RoundsIntegers => line.replace(TAGGED, "9007199254740992"),
            F::WritesFloatsItsWay => line.replace(":0.1}", ":0.10}"),
            F::SkipsReservedFields => line.replace(r#""select":"value of select","#, ""),
            F::CutsLongText if line.len() > 1 << 20 => {
                format!("{}{}", &line[..100], &line[line.len() - 100..])
            }
            _ => line.to_owned(),
        }
    }
}
