//! Vectors on their way into a store: left out, or made again of the texts of their records.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use half::f16;
use serde::Serialize;

use crate::{
    compat::VectorChanges,
    error::{Error, ErrorKind, Result},
    manifest::{CollectionInfo, CollectionManifest, VectorInfo},
    record::{ElementType, RecordBatch, VectorColumn, VectorShape, canonical},
};

/// Makes vectors of texts: the model that the application uses now.
///
/// The host implements it; a restore calls it for an [`Embedding`] that was
/// [asked for](crate::RestoreOptions::embed), several times at once, up to eight. What it answers
/// is staged, read back and compared like what comes from the archive. A failure ends the
/// restore, with live content as before.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model's name, as the collection or the host gives it: by it vectors of the same model
    /// are known.
    fn model(&self) -> &str;

    /// Elements of each vector.
    fn dimension(&self) -> usize;

    /// The most texts that it is given at a time; 64 by default.
    fn most(&self) -> usize {
        64
    }

    /// One vector for each text, in their order. No text is empty.
    ///
    /// # Errors
    /// A model that does not answer; the restore is then taken back.
    async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;
}

/// Which vector of which collection an [`Embedder`] makes, and of what.
///
/// Where the archive says that its vectors are of the same model and dimension they stay, and only
/// records without one get one. Otherwise every record's vector is made again, because two models
/// in one collection find nothing of each other. A record without a text has no such vector.
///
/// Vectors keep the distance and the element type that the archive's collection has; for the
/// distance `cosine` they are scaled to length one, as stores do that would otherwise change them.
#[derive(Clone)]
pub struct Embedding {
    store: String,
    collection: String,
    vector: String,
    text: String,
    keeps: bool,
    distance: Option<String>,
    embedder: Arc<dyn Embedder>,
}

impl Embedding {
    /// The `vector` of a collection of the archive, which need not have it yet, from the text at
    /// the JSON pointer `text` in a record's value as it is written: behind migrations and
    /// rewriting. The one unnamed vector of a collection is `""`.
    pub fn new(
        store: impl Into<String>,
        collection: impl Into<String>,
        vector: impl Into<String>,
        text: impl Into<String>,
        embedder: impl Embedder + 'static,
    ) -> Self {
        Self {
            store: store.into(),
            collection: collection.into(),
            vector: vector.into(),
            text: text.into(),
            keeps: false,
            distance: None,
            embedder: Arc::new(embedder),
        }
    }

    /// Keeps the vectors that are in the archive although it does not say of which model they are,
    /// or calls it otherwise: the host knows that it is the same.
    #[must_use]
    pub fn missing_only(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Another distance than the archive's collection has. Of a vector that it does not have at all
    /// the distance is `cosine` by default.
    #[must_use]
    pub fn distance(mut self, distance: impl Into<String>) -> Self {
        self.distance = Some(distance.into());
        self
    }

    fn place(&self) -> String {
        format!("{}/{}, vector {:?}", self.store, self.collection, self.vector)
    }
}

impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedding({}, by {})", self.place(), self.embedder.model())
    }
}

/// What became of a vector that does not go into the store as it comes out of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RestoredVector {
    /// It was left out.
    LeftOut,
    /// It was made again.
    Embedded {
        /// By this model.
        model: String,
        /// How many records got one.
        made: u64,
        /// How many had theirs in the archive.
        kept: u64,
        /// How many have no text to make one of.
        without_text: u64,
    },
}

impl RestoredVector {
    pub(super) fn add(&mut self, other: Self) {
        match (self, other) {
            (
                Self::Embedded { made, kept, without_text, .. },
                Self::Embedded { made: more, kept: also, without_text: none, .. },
            ) => {
                *made += more;
                *kept += also;
                *without_text += none;
            }
            (this, other) => *this = other,
        }
    }
}

impl fmt::Display for RestoredVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeftOut => f.write_str("left out"),
            Self::Embedded { model, made, kept, without_text } => {
                write!(f, "{made} made by {model}, {kept} kept, {without_text} without a text")
            }
        }
    }
}

/// What was asked for, by store and collection of the archive.
#[derive(Debug, Clone, Default)]
pub(crate) struct VectorWishes {
    pub(super) left_out: BTreeMap<(String, String), BTreeSet<String>>,
    pub(super) embeddings: Vec<Embedding>,
}

impl VectorWishes {
    /// The collections that something is asked of.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        let left_out = self.left_out.keys().map(|(s, c)| (s.as_str(), c.as_str()));
        left_out.chain(self.embeddings.iter().map(|e| (e.store.as_str(), e.collection.as_str())))
    }
}

/// What happens to the vectors of one collection.
#[derive(Debug)]
pub(super) struct Revision {
    pub(super) changes: VectorChanges,
    makers: Vec<Maker>,
}

#[derive(Debug)]
struct Maker {
    embedding: Embedding,
    info: VectorInfo,
    keeps: bool,
}

/// The texts of one batch that a maker is given, each with its record's row.
pub(super) struct Texts {
    // Which maker.
    maker: usize,
    rows: Vec<usize>,
    texts: Vec<String>,
    kept: u64,
    without: u64,
}

impl Revision {
    /// `None`: vectors stay as they are.
    pub(super) fn new(
        store: &str,
        collection: &str,
        known: &CollectionManifest,
        wishes: &VectorWishes,
    ) -> Result<Option<Self>> {
        let place = (store.to_owned(), collection.to_owned());
        let left_out = wishes.left_out.get(&place).cloned().unwrap_or_default();
        let mine = |e: &&Embedding| e.store == store && e.collection == collection;
        let embeddings: Vec<_> = wishes.embeddings.iter().filter(mine).collect();
        if left_out.is_empty() && embeddings.is_empty() {
            return Ok(None);
        }
        let there = |name: &String| {
            known.info.vector_info.contains_key(name) || known.tally.vectors.contains_key(name)
        };
        if let Some(name) = left_out.iter().find(|name| !there(name)) {
            let what = "the archive's collection has no such vector";
            let names = known.info.vector_info.keys().chain(known.tally.vectors.keys());
            let names: Vec<_> = names.collect::<BTreeSet<_>>().into_iter().collect();
            return Err(Error::new(ErrorKind::NotFound, what)
                .on(format!("{store}/{collection}, vector {name:?}"))
                .advise(format!("it has these: {names:?}")));
        }
        let mut revision =
            Self { changes: VectorChanges { left_out, ..Default::default() }, makers: Vec::new() };
        for embedding in embeddings {
            let maker = Maker::new(embedding, &known.info).map_err(|e| e.on(embedding.place()))?;
            let changes = &mut revision.changes;
            let name = embedding.vector.clone();
            let twice = changes.left_out.contains(&name)
                || changes.made.insert(name, maker.info.clone()).is_some();
            if twice {
                let what = "a vector is left out and made, or made twice";
                return Err(Error::new(ErrorKind::InvalidInput, what).on(embedding.place()));
            }
            changes.model = Some(embedding.embedder.model().to_owned());
            revision.makers.push(maker);
        }
        Ok(Some(revision))
    }

    /// For people: one line for each vector.
    pub(super) fn notes(&self, collection: &str) -> impl Iterator<Item = String> {
        let left_out = self.changes.left_out.iter();
        let left_out =
            left_out.map(move |name| format!("{collection}: the vector {name:?} is left out"));
        let made = self.makers.iter().map(move |Maker { embedding, keeps, .. }| {
            let Embedding { vector, text, embedder, .. } = embedding;
            let which = if *keeps { "where it is missing" } else { "for every record" };
            format!(
                "{collection}: the vector {vector:?} is made {which}, of the text at {text:?}, by \
                 the model {} with {} dimensions",
                embedder.model(),
                embedder.dimension()
            )
        });
        left_out.chain(made)
    }

    /// Takes out what does not stay, and finds the texts. Work for a thread.
    pub(super) fn prepare(&self, mut batch: RecordBatch) -> Result<(RecordBatch, Vec<Texts>)> {
        for name in &self.changes.left_out {
            batch = batch.without_column(name);
        }
        let mut texts = Vec::new();
        for (at, maker) in self.makers.iter().enumerate() {
            let wanted = maker.texts(at, &batch).map_err(|e| e.on(maker.embedding.place()))?;
            if !maker.keeps {
                batch = batch.without_column(&maker.embedding.vector);
            }
            texts.push(wanted);
        }
        Ok((batch, texts))
    }

    /// Makes the vectors of these texts.
    pub(super) async fn embed(
        &self,
        mut batch: RecordBatch,
        wanted: Vec<Texts>,
    ) -> Result<(RecordBatch, BTreeMap<String, RestoredVector>)> {
        let mut outcome = BTreeMap::new();
        for texts in wanted {
            let maker = &self.makers[texts.maker];
            let Embedding { vector, embedder, .. } = &maker.embedding;
            let told = RestoredVector::Embedded {
                model: embedder.model().to_owned(),
                made: texts.rows.len() as u64,
                kept: texts.kept,
                without_text: texts.without,
            };
            let column = maker.column(&batch, texts).await;
            batch = batch.with_column(column.map_err(|e| e.on(maker.embedding.place()))?)?;
            outcome.insert(vector.clone(), told);
        }
        Ok((batch, outcome))
    }
}

impl Maker {
    fn new(embedding: &Embedding, archived: &CollectionInfo) -> Result<Self> {
        let Embedding { text, embedder, .. } = embedding;
        let invalid = |what: &str| Err(Error::new(ErrorKind::InvalidInput, what));
        if !text.is_empty() && !text.starts_with('/') {
            return invalid("the place of a text is not a JSON pointer");
        }
        let dim = embedder.dimension() as u64;
        if dim == 0 || embedder.most() == 0 {
            return invalid("an embedder makes vectors without elements, or takes no text");
        }
        let known = archived.vector_info.get(&embedding.vector);
        if known.is_some_and(|known| known.dim.is_none()) {
            let what = "a sparse vector cannot be made of a text by an embedder";
            return Err(Error::new(ErrorKind::Unsupported, what).advise("leave that vector out"));
        }
        let fits = known.is_none_or(|known| known.dim == Some(dim));
        if embedding.keeps && !fits {
            let what = "the archive's vectors have another dimension than the embedder's";
            return Err(Error::new(ErrorKind::Incompatible, what)
                .advise("make the vectors of all records again, without `missing_only`"));
        }
        let same_model = archived.model.as_deref() == Some(embedder.model());
        let distance = known.and_then(|known| known.distance.clone());
        let distance = match known {
            Some(_) => embedding.distance.clone().or(distance),
            None => embedding.distance.clone().or_else(|| Some("cosine".to_owned())),
        };
        let info = VectorInfo {
            dim: Some(dim),
            element: known.map_or(ElementType::F32, |known| known.element),
            distance,
        };
        let same_distance = known.is_none_or(|known| known.distance == info.distance);
        let keeps = embedding.keeps || (same_model && fits && same_distance);
        Ok(Self { embedding: embedding.clone(), info, keeps })
    }

    fn texts(&self, maker: usize, batch: &RecordBatch) -> Result<Texts> {
        let mut found = Texts { maker, rows: Vec::new(), texts: Vec::new(), kept: 0, without: 0 };
        let column = batch.column(&self.embedding.vector).filter(|_| self.keeps);
        for record in batch.iter() {
            let row = record.row();
            if column.is_some_and(|column| column.is_present(row)) {
                found.kept += 1;
                continue;
            }
            let value = canonical::parse(record.value_json().as_bytes())?;
            let text = value.pointer(&self.embedding.text).and_then(|text| text.as_str());
            match text.filter(|text| !text.trim().is_empty()) {
                Some(text) if record.element_json().is_none() => {
                    found.rows.push(row);
                    found.texts.push(text.to_owned());
                }
                _ => found.without += 1,
            }
        }
        Ok(found)
    }

    /// The column of a batch: what it has, and what is made.
    async fn column(&self, batch: &RecordBatch, wanted: Texts) -> Result<VectorColumn> {
        let embedder = &self.embedding.embedder;
        let dim = embedder.dimension();
        let (rows, element) = (batch.len(), self.info.element);
        let width = dim * element.size();
        let (mut data, mut present) = (vec![0; rows * width], vec![false; rows]);
        if let Some(column) = batch.column(&self.embedding.vector) {
            if *column.shape() != (VectorShape::Dense { dim }) || column.element() != element {
                let what = "the archive's vectors have another form than those that are made";
                return Err(Error::new(ErrorKind::Incompatible, what));
            }
            for row in (0..rows).filter(|row| column.is_present(*row)) {
                data[row * width..][..width].copy_from_slice(column.row_bytes(row));
                present[row] = true;
            }
        }
        let most = embedder.most();
        for (rows, texts) in wanted.rows.chunks(most).zip(wanted.texts.chunks(most)) {
            let vectors = embedder.embed(texts).await?;
            if vectors.len() != texts.len() {
                let what = format!("{} texts gave {} vectors", texts.len(), vectors.len());
                return Err(Error::new(ErrorKind::InvalidInput, what));
            }
            for (row, vector) in rows.iter().zip(vectors) {
                let place = &mut data[row * width..][..width];
                self.put(vector, place).map_err(|e| e.on(batch.get(*row).key_json()))?;
                present[*row] = true;
            }
        }
        let shape = VectorShape::Dense { dim };
        let name = &self.embedding.vector;
        VectorColumn::from_arrays(name, element, shape, data.into(), Some(present), rows)
    }

    fn put(&self, mut vector: Vec<f32>, place: &mut [u8]) -> Result<()> {
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
        let dim = self.embedding.embedder.dimension();
        if vector.len() != dim {
            return invalid(format!("the embedder made {} elements, not {dim}", vector.len()));
        }
        if !vector.iter().all(|value| value.is_finite()) {
            return invalid("the embedder made an element that is no finite number".into());
        }
        let cosine = |distance: &str| distance.eq_ignore_ascii_case("cosine");
        // Bytes have no length of one.
        if self.info.element != ElementType::U8 && self.info.distance.as_deref().is_some_and(cosine)
        {
            unit(&mut vector);
        }
        let values = place.chunks_exact_mut(self.info.element.size()).zip(vector);
        for (place, value) in values {
            match self.info.element {
                ElementType::F32 => place.copy_from_slice(&value.to_le_bytes()),
                ElementType::F16 => place.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
                ElementType::U8 if (0.0..=255.0).contains(&value) && value.fract() == 0.0 => {
                    place[0] = value as u8;
                }
                ElementType::U8 => {
                    return invalid(format!("the embedder made {value}, and the vector has bytes"));
                }
            }
        }
        Ok(())
    }
}

/// Scales a vector to length one; one without a direction stays.
fn unit(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
}
