fn main() {
    keeper::hook();
}
